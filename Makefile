# make help lists the targets. Each but gpu and lock sets up .venv by itself when it is missing.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
INSTALLED := $(VENV)/.installed
DEV_INSTALLED := $(VENV)/.dev-installed
BENCH_INSTALLED := $(VENV)/.bench-installed

.DELETE_ON_ERROR:

export PATH := $(abspath $(VENV))/bin:$(PATH)

# A teacher that fits digits and clearly leads the student (docs/tuning.md says how it was chosen).
DEMO := -S dataset=digits -S image_size=12 -S crop_padding=1 -S horizontal_flip=false \
	-S teacher=resnet18 -S teacher_epochs=6 -S teacher_batch_size=32 \
	-S epochs=4 -S batch_size=32 -S alpha=1 -S temperature=2 -S 'seeds=[0,1,2,3]' \
	-S teacher_optimizer=adamw -S teacher_learning_rate=2e-3 -S teacher_weight_decay=1.0 \
	-S optimizer=adamw -S learning_rate=5e-3 -S weight_decay=1.0 -S warmup_fraction=0.15 \
	-S compile=false  # compiling takes a GPU longer than these trainings

DIGITS := --dataset digits --image-size 12 --crop-padding 1 --horizontal-flip false \
	--teacher resnet18 --teacher-epochs 6 --teacher-batch-size 32 \
	--epochs 4 --batch-size 32 --alpha 1 --temperature 2 --compile false

.DEFAULT_GOAL := help
.PHONY: help setup demo compare repro show plots test test-fast test-all faults lint bench gpu models format lock

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 11

# What `dvc exp run --temp` cannot do, said before it fails in its own words.
CHECK_PLACE := @LC_ALL=C; git rev-parse --verify --quiet HEAD >/dev/null || { \
	echo "make demo: dvc exp run needs a git repository with a commit: clone the project" >&2; exit 1; }; \
	if [ "$$(git rev-parse --is-shallow-repository)" = true ]; then \
	echo "make demo: dvc exp run --temp cannot fetch into a shallow clone: git fetch --unshallow" >&2; exit 1; fi; \
	case "$(CURDIR)" in *[!\ -~]*) \
	echo "make demo: dvc exp run --temp needs a path of ASCII letters alone: move the project" >&2; exit 1; esac

PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
CPU_BUILD = $(shell sed -nE 's/^torch(vision)?==.*/&+cpu/p' requirements.txt)

# The build of PyTorch: for CUDA where there is an NVIDIA GPU. CPU=1 and GPU=1 choose.
HAS_GPU = $(shell nvidia-smi -L 2>/dev/null | grep GPU || ls /dev/nvidia0 2>/dev/null)
WANTED = $(if $(CPU),cpu,$(if $(GPU)$(HAS_GPU),cuda,cpu))

# torch and torchvision of two releases can be installed side by side, and do not work.
CHECK_TORCH = import torch, torchvision; \
	torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5)

setup: $(INSTALLED)  ## build .venv at pinned versions; CPU=1 or GPU=1 chooses the build of PyTorch

# The first question takes ten seconds where the index does not answer.
$(INSTALLED): requirements.txt requirements-cuda.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make setup: Python 3.11 or newer is needed: make setup PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@if [ $(WANTED) = cuda ]; then \
		echo "make setup: PyTorch for CUDA: up to 3.2 GB to download, 6.6 GB on disk"; \
	elif $(PIP) index versions --timeout 10 --retries 0 --index-url $(CPU_INDEX) torch 2>/dev/null \
			| grep -wqF '$(patsubst torch==%,%,$(firstword $(CPU_BUILD)))'; then \
		echo "make setup: PyTorch for the CPU: up to 0.4 GB to download, 1.8 GB on disk"; \
		$(PIP) install --quiet --no-deps --index-url $(CPU_INDEX) $(CPU_BUILD); \
	else \
		echo "make setup: $(CPU_INDEX) has no $(firstword $(CPU_BUILD)) for this Python, or cannot be reached:"; \
		echo "make setup: PyTorch for CUDA instead, which needs no GPU: up to 3.2 GB to download, 6.6 GB on disk"; \
	fi
	@$(PIP) install --quiet --requirement requirements.txt --constraint requirements-cuda.txt
	@$(VENV)/bin/python -c '$(CHECK_TORCH)' || { echo "make setup: torch and torchvision in $(VENV)" \
		"do not work together: remove $(VENV), then make setup" >&2; exit 1; }
	@touch $@

$(DEV_INSTALLED): requirements-dev.txt $(INSTALLED)
	@$(PIP) install --quiet --no-deps --requirement requirements-dev.txt
	@touch $@

$(BENCH_INSTALLED): requirements-bench.txt $(INSTALLED)
	@$(PIP) install --quiet --no-deps --requirement requirements-bench.txt
	@touch $@

demo: $(INSTALLED)  ## run the whole pipeline on handwritten digits: no download, about 3 minutes
	$(CHECK_PLACE)
	@dvc exp remove --quiet demo 2>/dev/null || true
	dvc exp run --temp --name demo $(DEMO)
	@dvc get --quiet --force --rev demo --out report/demo.html . report/index.html
	@echo
	@python -c "import dvc.api; print(dvc.api.read('metrics/summary.md', rev='demo'))"
	@echo "Look at next:"
	@echo "  report/demo.html                 the report: open it in a browser"
	@echo "  dvc exp show --only-changed      the experiment beside your work tree"
	@echo "  make repro                       the same on CIFAR-10: about an hour and a half on two cores"
	@echo "  make compare                     all methods on digits, 5 seeds each"
	@echo "  README.md                        recipes: own alpha, models, images, few labels, sweeps"
	@echo "(dvc is in $(VENV)/bin: . $(VENV)/bin/activate)"

compare: $(INSTALLED)  ## compare all methods on digits with 5 seeds; COMPARE= for further options
	python -m distillation $(DIGITS) --seeds '[0,1,2,3,4]' --experiment all methods $(COMPARE)

repro: $(INSTALLED)  ## run the pipeline with params.yaml as it stands: CIFAR-10
	dvc repro

# dvc exp show has a column per parameter and number, named by its file: what changed remains.
SHOW ?= after_acc
show: $(INSTALLED)  ## show this commit's experiments, a column per method; SHOW=after_f1, SHOW_OPTIONS=-A for all commits
	@dvc exp show $(SHOW_OPTIONS) --csv --precision 4 --only-changed --drop 'typ$$|parent$$|Created$$' \
		--drop 'data/|models/|metrics/(?!methods/[^:]+:$(SHOW)$$)' | \
		sed -E '1s#metrics/methods/([^:]+)\.json:[a-z0-9_]+#\1#g' | python -c \
		'import sys, pandas; print(pandas.read_csv(sys.stdin, dtype=str).fillna("").to_string(index=False))'

# DVC's page loads its drawing library from the network; a template that holds it does not.
PLOTS_PAGE := $(VENV)/plots.html
plots: $(PLOTS_PAGE)  ## draw curves and confusions in report/plots.html: no network needed to read it
	dvc plots show --html-template "$$(realpath "$(PLOTS_PAGE)")" --out .scratch/plots
	@cp .scratch/plots/index.html report/plots.html

$(PLOTS_PAGE): $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vl-convert-python==1.9.0.post1
	@python -c 'import vl_convert; print("<!DOCTYPE html><meta charset=utf-8><title>Plots</title><script>(() => {", vl_convert.javascript_bundle(), "})()</script><body>{plot_divs}")' > $@

# A file's tests go to one worker, files in the order that tests/conftest.py gives them.
PYTEST := python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(DEV_INSTALLED) $(BENCH_INSTALLED)  ## run the tests, offline, on two workers: 5 to 8 minutes
	$(PYTEST)

test-fast: $(DEV_INSTALLED) $(BENCH_INSTALLED)  ## run those without dvc, browser, whole comparisons: about 1½ minutes
	$(PYTEST) -m "not full and not slow and not faults"

test-all: $(DEV_INSTALLED) $(BENCH_INSTALLED)  ## run the tests, whole journeys and full cross products too
	$(PYTEST) -m "not faults"

SEED ?= $(shell date +%s)
faults: $(DEV_INSTALLED) $(BENCH_INSTALLED)  ## try kills, damage, full disks, hostile input; SEED= repeats a run
	FAULTS_SEED=$(SEED) python -m pytest -n $(WORKERS) --dist load -m faults tests/pipeline/faults

lint: $(DEV_INSTALLED)  ## check style, types and workflows
	ruff check .
	ruff format --check .
	mypy
	zizmor --offline --pedantic --quiet .github

bench: $(BENCH_INSTALLED)  ## measure speed against other systems; BENCH=--quick for under 5 minutes
	python -m benchmarks $(BENCH)

# Needs no .venv: any Python will do that has what the trainings import, and says what it lacks.
gpu:  ## tests, benchmark, full job on one GPU, in 9 minutes, without DVC; GPU_OPTIONS=--help
	@$(PYTHON) -m benchmarks.gpu $(GPU_OPTIONS)

models: $(INSTALLED)  ## try all of timm's families; writes the table in docs/models.md, 6 minutes
	python -m benchmarks.families

format: $(DEV_INSTALLED)  ## put the code into its style
	ruff check --fix .
	ruff format .

# What PyTorch's build for CUDA brings along, and the one for the CPU does not.
ONLY_CUDA := ^(cuda-|nvidia-[^m]|triton=)
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet
MADE := Made from pyproject.toml by: make lock
LOCKS := .scratch/lock

lock:  ## pin the newest versions pyproject.toml allows in requirements*.txt (needs uv)
	mkdir -p $(LOCKS)
	$(COMPILE) --all-extras --upgrade -o $(LOCKS)/all
	$(COMPILE) --constraint $(LOCKS)/all --upgrade -o $(LOCKS)/user
	$(COMPILE) --constraint $(LOCKS)/all --upgrade -o $(LOCKS)/dev --extra dev
	@cd $(LOCKS) && { echo "# Every package at a fixed version, for Python 3.11 and newer. $(MADE)"; \
		grep -vE '$(ONLY_CUDA)' user; } > ../../requirements.txt
	@cd $(LOCKS) && { echo "# Constraints: what PyTorch's build for CUDA brings along. $(MADE)"; \
		grep -E '$(ONLY_CUDA)' user; } > ../../requirements-cuda.txt
	@cd $(LOCKS) && { echo "# What tests and lint need beyond requirements.txt. $(MADE)"; \
		grep -vxFf user dev; } > ../../requirements-dev.txt
	@cd $(LOCKS) && { echo "# Constraints: what the extras need beyond requirements.txt. $(MADE)"; \
		grep -vxFf user all; } > ../../requirements-extras.txt
