# The project with all it needs: docker build -t distillation . && docker run distillation
# A GPU's torch.compile needs the C compiler. For a GPU: docker build --build-arg BUILD=GPU=1 -t distillation . && docker run --gpus all distillation
FROM python:3.11-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 user \
    && install --directory --owner user /opt/venv /distillation

USER 1000
WORKDIR /distillation
# Outside the project's folder, so that a checkout mounted there does not hide it.
ENV MAKEFLAGS=VENV=/opt/venv PATH=/opt/venv/bin:$PATH

ARG BUILD=CPU=1
COPY Makefile requirements.txt requirements-cuda.txt ./
# Writable for whoever runs it: a checkout mounted there may belong to another user.
RUN PIP_NO_CACHE_DIR=1 make setup $BUILD && chmod --recursive a+rwX /opt/venv

COPY --chown=user . .
CMD ["make", "demo"]
