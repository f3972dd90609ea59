"""A file of weights by its content, whatever its ending: safetensors, or torch.save's.

Everything else is refused in a sentence that says what the file is. Which of a file's mappings is
the state dict is left to `state_dicts`.
"""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch

from distillation.base.checksums import describe_repair
from distillation.models.names import ModelError
from distillation.models.unpickling import (
    SAVE_STATE_DICT,
    UnreadableError,
    load_legacy,
    load_zip,
)

ALLOWED = "allowed: a file of safetensors, or of torch.save with a state dict in it"

MAGIC_NUMBERS = {
    b"\x93NUMPY": "an array of numpy",
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"GGUF": "a GGUF file of llama.cpp",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"BZh": "a bzip2 archive; unpack it",
    b"\xfd7zXZ": "an xz archive; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstandard archive; unpack it",
    b"Rar!": "a rar archive; unpack it",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"SQLite": "a database",
    b"model_checkpoint_path": "the index of TensorFlow checkpoints",
}
"""What a file is by its first bytes."""

ZIP_MEMBERS = {
    "constants.pkl": "TorchScript",
    "data.ts": "TorchScript",
    "serialized_exported_program.json": "a program of torch.export",
    "models/model.json": "a program of torch.export",
    "model.weights.h5": "a Keras model",
    "mimetype": "a document",
}
"""What a zip file is by the end of a member's name."""


class Content(NamedTuple):
    """What a file of weights holds."""

    value: Any
    """Usually a mapping, with tensors somewhere in it."""
    metadata: dict[str, str]
    """Of a safetensors file; else empty."""


def read_content(path: Path, *, got: str) -> Content:
    """Read a file of weights without running anything in it.

    Args:
        path: the file.
        got: begins every message: parameter and name as the user gave them, as
            `teacher_checkpoint: got 'PATH'`.

    Raises:
        ModelError: the file is missing, damaged, not one of weights, or names code to run.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise ModelError(f"{got}, which cannot be read ({error.strerror}); {ALLOWED}") from error
    if not size:
        raise ModelError(f"{got}, which is an empty file; {describe_repair_of_weights(path)}")
    if len(start) > 8 and start[8:9] == b"{":
        return _read_safetensors(path, got=got)
    try:
        if start.startswith(b"PK\x03\x04"):
            _check_zip(path, got=got)
            return Content(load_zip(path), {})
        if start.startswith(b"\x80"):
            return Content(load_legacy(path), {})
    except UnreadableError as error:
        raise ModelError(f"{got}, which {error}") from error
    raise ModelError(f"{got}, which {_describe(path, start)}; {ALLOWED}")


def _read_safetensors(path: Path, *, got: str) -> Content:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return Content(safetensors.torch.load_file(path), metadata)
    # Its reader has errors of several kinds for a damaged header and for types torch lacks.
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ModelError(
            f"{got}, which is a safetensors file, but damaged or cut short ({first}); "
            f"{describe_repair_of_weights(path)}"
        ) from error


def _check_zip(path: Path, *, got: str) -> None:
    """Raise if a zip file is not one of torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    # zipfile has its own errors, and those of whatever it stumbles over.
    except Exception as error:
        raise ModelError(
            f"{got}, which is damaged or cut short: its end is missing; fetch or write it again"
        ) from error
    for end, kind in ZIP_MEMBERS.items():
        if any(name == end or name.endswith("/" + end) for name in names):
            raise ModelError(f"{got}, which is {kind}; {SAVE_STATE_DICT}")
    if sum(name.count("/") == 1 and name.endswith("/data.pkl") for name in names) == 1:
        return
    if names and all(name.endswith(".npy") for name in names):
        raise ModelError(f"{got}, which is a file of numpy arrays (.npz); {ALLOWED}")
    inside = f" that holds {names[0]}" if names else ""
    raise ModelError(f"{got}, which is a zip archive{inside}; {ALLOWED}: unpack it")


def _describe(path: Path, start: bytes) -> str:
    """Return what a file is that holds no weights; completes `PATH, which …`."""
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS instead of the file itself: run `git lfs pull`"
    for magic, kind in MAGIC_NUMBERS.items():
        if start.startswith(magic):
            return f"is {kind}"
    if start[257:262] == b"ustar":
        return "is a tar archive; unpack it"
    if path.suffix == ".index" or ".data-0000" in path.name:
        return "is one of the files of a TensorFlow checkpoint"
    if path.suffix == ".onnx" or (start[:1] == b"\x08" and b"\x12" in start[2:4]):
        return "is an ONNX model"
    if start[4:8] == b"TFL3":
        return "is a TensorFlow Lite model"
    text = ""
    with contextlib.suppress(UnicodeDecodeError):
        # A character may be cut at the end of what was read.
        text = start[:-4].decode() if len(start) == 4096 else start.decode()
    head = " ".join(text.split())[:40]
    if head.lower().startswith(("<!doctype", "<html", "<?xml", "<head", "<error")):
        return "is a web page instead of the file (a login or an error?): fetch it again"
    if head.startswith(("{", "[")):
        if '"weight_map"' in text:
            return "is the index of a model in several files: save it as one"
        return f"is JSON text ({head}): fetch the file of weights itself"
    if head and all(character.isprintable() for character in head):
        return f"is text that begins {head!r}"
    return f"is no file of weights: it begins with the bytes {start[:8].hex(' ')}"


def describe_repair_of_weights(path: Path) -> str:
    """Say how to get rid of a damaged file of weights, whoever wrote it."""
    return f"fetch or write it again; if a stage wrote it: {describe_repair(path, by='that stage')}"
