"""The state of a training on disk, so that a killed run goes on where it was.

A state belongs to a fingerprint of all that decides the training: parameters, data, initial
weights, teacher's outputs, precision, torch's and timm's version and this package's own code. Only
a state of the same fingerprint is used. What a state holds is the loop's business, but
for the list under `history`.

    <root>/<stage>/<fingerprint>[-N]/   one worker's folder: `state`, `environment.json` and `lock`
    <root>/<stage>/set-aside/           states that could not be used
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import timm
import torch
from torch import nn

from distillation.base.checksums import hash_code
from distillation.base.errors import DistillationError
from distillation.base.files import write_json
from distillation.base.limits import describe_limit, is_out_of_memory
from distillation.base.locks import NO_LOCKS
from distillation.base.regular_files import NotAFileError, open_regular
from distillation.models.classifier import fingerprint_model

logger = logging.getLogger(__name__)

_MAGIC = b"distillation training state 1 "
_FINGERPRINT_CHARACTERS = 20
_STATE, _ENVIRONMENT, _LOCK = "state", "environment.json", "lock"
_LOCK_ATTEMPTS = 100
"""A folder that others make and remove is had after a few; one that cannot be made never is."""


class StatesError(DistillationError):
    """The state of a training cannot be kept where it should be."""


class TrainingStates:
    """Where one training keeps its state; held by one process at a time.

    A second process with the same fingerprint gets a folder of its own. Use it as a context: the
    folder is held within, and the lock goes with the process however it ends.
    """

    def __init__(self, root: Path, *, stage: str, fingerprint: str) -> None:
        self._stage_directory = root / stage
        self._stage = stage
        self._fingerprint = fingerprint[:_FINGERPRINT_CHARACTERS]
        self._directory: Path | None = None
        self._lock: int | None = None

    @property
    def path(self) -> Path:
        """Return the file of the state; it need not exist."""
        assert self._directory is not None, "used outside its context"
        return self._directory / _STATE

    @property
    def directory(self) -> Path:
        """Return the folder that is held, which `remove_states` takes."""
        return self.path.parent

    def began_in(self, environment: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the training began in: kept where it goes on, else this, and then kept."""
        path = self.directory / _ENVIRONMENT
        if self.path.exists():
            with contextlib.suppress(OSError, ValueError):
                return dict(json.loads(path.read_text(encoding="utf-8")))
        write_json(path, environment)
        return dict(environment)

    def load(self) -> dict[str, Any] | None:
        """Read the last state, on the CPU.

        Returns:
            What `save` was given, or None when there is nothing. A file that is damaged or is
            no state of this training is set aside with a warning, and counts as nothing.
        """
        if not self.path.exists():
            return None
        try:
            with open_regular(self.path) as file:
                return _unpack(file.read(), self._fingerprint)
        except (ValueError, NotAFileError) as error:
            aside = self._set_aside()
            logger.warning(
                "WARNING: %s: %s cannot be used (%s); it was moved to %s and the training starts "
                "from the beginning",
                self._stage,
                self.path,
                error,
                aside,
            )
            return None

    def history(self) -> list[dict[str, Any]]:
        """Return the history in the last state, empty when there is none."""
        state = self.load()
        return [] if state is None else list(state["history"])

    def save(self, state: dict[str, Any]) -> None:
        """Write a state of tensors, numbers, texts, lists and dicts, whole or not at all."""
        temporary = self.path.with_name("state.tmp")
        with temporary.open("wb") as file:
            file.write(_pack(state, self._fingerprint))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def __enter__(self) -> TrainingStates:
        number = 0
        while self._lock is None:
            suffix = f"-{number}" if number else ""
            self._directory = self._stage_directory / f"{self._fingerprint}{suffix}"
            self._lock = _lock(self._directory)
            number += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def _set_aside(self) -> Path:
        folder = self._stage_directory / "set-aside"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise StatesError(
                f"{folder}: no folder that a training's state can be set aside in; remove what "
                "stands in its place, then type the same command again"
            ) from error
        number = 0
        while (aside := folder / f"{self.path.parent.name}.{number}").exists():
            number += 1
        return self.path.replace(aside)


def remove_states(directory: Path) -> None:
    """Delete what a training kept: its results are safe elsewhere. What is in use again stays.

    Args:
        directory: as `TrainingStates.directory` had it.
    """
    if not directory.is_dir() or (lock := _lock(directory)) is None:
        return
    # Once the lock is gone the folder may be another's: it goes last, and then only if empty.
    for name in (_STATE, "state.tmp", _ENVIRONMENT, _LOCK):
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()
    os.close(lock)


def fingerprint_training(
    modules: Mapping[str, nn.Module], settings: Mapping[str, Any], *, code: Sequence[str]
) -> str:
    """Return the SHA-256 of all that decides a training.

    Args:
        modules: what is trained, with its initial weights.
        settings: everything else that matters and is not code, ready for JSON.
        code: the files and folders of this package that decide it, as `hash_code` takes them: an
            edited loss must not go on half trained.
    """
    content = {
        "modules": {name: fingerprint_model(module) for name, module in modules.items()},
        "settings": settings,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "code": hash_code(*code),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _lock(directory: Path) -> int | None:
    """Take a folder; gives the lock's file descriptor, or None when another process has it."""
    path = directory / _LOCK
    reason = "it goes away as soon as it is made"
    for _ in range(_LOCK_ATTEMPTS):
        # Its last owner may be removing the folder at any of these lines; then it is made again.
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if describe_limit(error):
                raise
            reason = str(error.strerror)
            if isinstance(error, (FileExistsError, FileNotFoundError)):
                continue
            break
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            if error.errno not in NO_LOCKS:
                raise
            reason = f"its file system has no locks: {error.strerror}"
            break
        os.close(descriptor)
    raise StatesError(
        f"{directory}: no folder that a training's state can be kept in ({reason}); allowed: a "
        "folder that can be written to: remove what stands in its place, or set it free"
    )


def _pack(state: dict[str, Any], fingerprint: str) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    content = stream.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return b"%s%s %s\n%s" % (_MAGIC, fingerprint.encode(), digest.encode(), content)


def _unpack(data: bytes, fingerprint: str) -> dict[str, Any]:
    header, _, content = data.partition(b"\n")
    if not header.startswith(_MAGIC):
        raise ValueError("it is no training state")
    found, _, digest = header.removeprefix(_MAGIC).decode("ascii", "replace").partition(" ")
    if found != fingerprint:
        raise ValueError(f"it belongs to another training, {found}")
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError("it is damaged or cut short")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers have errors of many kinds
        if is_out_of_memory(error):
            raise
        raise ValueError(f"it cannot be read: {error}") from error
