"""Reach the Hugging Face Hub: one short attempt, then what is cached, then a sentence.

huggingface_hub tries six times per file with growing pauses, which is 46 seconds for a model
without a network. What the files hold is left to `reading`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import get_session
from timm.models._hub import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME, hf_split

from distillation.models.names import ModelError

ATTEMPT_SECONDS = 5.0
"""How long the Hub has to answer the first request, and any server to send the next bytes."""

WAY_OUT = "allowed: a local file given by teacher_checkpoint or student_checkpoint"


@contextlib.contextmanager
def quick_hub_errors(what: str, *, way_out: str = WAY_OUT) -> Iterator[None]:
    """Let fetching weights in this block fail within seconds, in one sentence.

    The Hub is asked once. Where it does not answer, the block runs in huggingface_hub's offline
    mode: cached files are used, and a file that is not cached is an error at once.

    Args:
        what: begins the message, such as `pretrained: the published weights of resnet18`.
        way_out: the end of the message.

    Raises:
        ModelError: anything in the block failed; the cause is kept.
    """
    was_offline = huggingface_hub.constants.HF_HUB_OFFLINE
    timeout = socket.getdefaulttimeout()
    reason = "" if was_offline else _why_unreachable()
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm")]
    levels = [logger.level for logger in loggers]
    try:
        huggingface_hub.constants.HF_HUB_OFFLINE = was_offline or bool(reason)
        # Weights that are not on the Hub come by urllib, which waits for ever otherwise.
        socket.setdefaulttimeout(ATTEMPT_SECONDS)
        for logger in loggers:
            logger.setLevel(max(logging.ERROR, logger.level))
        yield
    except ModelError:
        raise
    # Weights are fetched through several libraries, each with its own errors; whatever went
    # wrong, the answer for the user is the same.
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        kind = type(error).__name__
        details = f"{kind}: {first}" if first else kind
        if reason and isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
            details = reason
        raise ModelError(f"{what} cannot be had ({details.rstrip('. ')}); {way_out}") from error
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = was_offline
        socket.setdefaulttimeout(timeout)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def fetch_model(repository: str, *, name: str, key: str) -> tuple[Path, Path]:
    """Return the paths of `config.json` and weights of a model on the Hub, in its cache.

    Args:
        repository: `USER/NAME` or `USER/NAME@REVISION`.
        name: as the user gave it, for the message.
        key: the parameter it was given as.

    Raises:
        ModelError: the name is none of the Hub's, there is no such model, or no network.
    """
    with quick_hub_errors(f"{key}: got {name!r}, whose weights"):
        identifier, revision = hf_split(repository)
        config = huggingface_hub.hf_hub_download(identifier, "config.json", revision=revision)
        try:
            weights = huggingface_hub.hf_hub_download(
                identifier, HF_SAFE_WEIGHTS_NAME, revision=revision
            )
        except EntryNotFoundError:
            weights = huggingface_hub.hf_hub_download(
                identifier, HF_WEIGHTS_NAME, revision=revision
            )
    return Path(config), Path(weights)


def _why_unreachable() -> str:
    """Ask the Hub once; returns why it does not answer, or nothing where it does."""
    endpoint = huggingface_hub.constants.ENDPOINT
    answers: list[str] = []

    def ask() -> None:
        try:
            status = get_session().head(endpoint, timeout=ATTEMPT_SECONDS).status_code
        # The client's own errors, those of its address and those of a proxy.
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")
            answers.append(f"{endpoint} does not answer: {first or type(error).__name__}")
        else:
            answers.append(f"{endpoint} answers with status {status}" if status >= 500 else "")

    # The client's limit holds for each of the Hub's addresses in turn, and not for their look-up.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ATTEMPT_SECONDS)
    return answers[0] if answers else f"{endpoint} does not answer within {ATTEMPT_SECONDS:.0f} s"
