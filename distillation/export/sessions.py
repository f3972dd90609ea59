"""Run an exported classifier with ONNX Runtime.

It imports no torch, so that a program that only predicts starts quickly. How the files are made is
the business of `onnx_file` and `quantization`.

Shapes: N images, B batch, S = image_size, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from distillation.base.checksums import ChecksumError, describe_repair
from distillation.base.files import write_text
from distillation.base.json_text import parse_json
from distillation.base.printable import printable
from distillation.export.checksum import check_checksum
from distillation.export.errors import ExportError, NoFileError, refuse

INPUT, OUTPUT = "images", "logits"
"""The names in the graph: (B, 3, S, S) uint8 goes in, (B, K) float32 comes out."""

ONNX_FILE, INT8_FILE = "student.onnx", "student-int8.onnx"
"""The student's files; the one in 8 bits is in git."""

WEIGHTS = "weights_fingerprint"
"""The metadata that tells whether two files are of one student."""

_LARGEST_BATCH = 256
_LARGEST_BATCH_PIXELS = 2**20
"""Of all images of a batch together, so that large images do not take all of the memory."""

_LARGEST_SIDE = 1024
"""Pixels; what parameters allow."""

_FILE_LIMIT_BYTES = 2**31
"""An ONNX file is one protobuf message."""

_NO_FILE = "no ONNX file: "
"""What stands in the place of a file that could not be made begins so."""

_ERRORS_ALONE = 3  # ONNX Runtime's severity; its warnings are about graphs, not about results


class ExportedModel:
    """A classifier in an ONNX file, ready to run on the CPU."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        *,
        class_names: tuple[str, ...],
        image_size: int,
    ) -> None:
        self._session = session
        self.class_names = class_names
        self.image_size = image_size

    @property
    def metadata(self) -> Mapping[str, str]:
        """Return what the file says about itself."""
        return self._session.get_modelmeta().custom_metadata_map

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits (B, K) of one batch (B, 3, S, S), 0 … 255."""
        try:
            return self._session.run([OUTPUT], {INPUT: pixels})[0]
        # ONNX Runtime's own errors have nothing in common but Exception.
        except Exception as error:
            raise refuse(
                f"ONNX Runtime cannot run the file on images of shape {pixels.shape}", error
            ) from error

    def predict_logits(
        self, images: NDArray[np.uint8], *, batch_size: int | None = None
    ) -> NDArray[np.float32]:
        """Return the logits (N, K) of images (N, S, S, 3), 0 … 255.

        Args:
            images: the images.
            batch_size: images at a time; None takes as many as go well.
        """
        batch_size = batch_size or choose_batch_size(self.image_size)
        logits = np.empty((len(images), len(self.class_names)), np.float32)
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            logits[rows] = self.run(to_pixels(images[rows]))
        return logits


def choose_batch_size(image_size: int) -> int:
    """Choose how many images of S × S pixels a large batch has."""
    return max(1, min(_LARGEST_BATCH, _LARGEST_BATCH_PIXELS // image_size**2))


def to_pixels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring images (B, S, S, 3) into the order of the graph, (B, 3, S, S)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def load_exported(path: Path, *, num_threads: int | None = None) -> ExportedModel:
    """Open a file that the stage `export_student` wrote; the bytes that are checked are those run.

    Args:
        path: an ONNX file.
        num_threads: threads an operator may use; None leaves it to ONNX Runtime.

    Raises:
        ExportError: the file is missing or damaged, or was not written by that stage: its checksum,
            the names of its classes or the size of its images are missing or wrong.
    """
    content = _read(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ALONE
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    try:
        session = onnxruntime.InferenceSession(
            content, sess_options=options, providers=["CPUExecutionProvider"]
        )
    # ONNX Runtime's own errors have nothing in common but Exception.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{path}: damaged, or no ONNX file: {reason}; {_repair(path)}") from error
    model = ExportedModel(session, **_describe(session, path))
    width = session.get_outputs()[0].shape[1]
    if not isinstance(width, int):  # some graphs do not say it
        width = model.run(np.zeros((1, 3, model.image_size, model.image_size), np.uint8)).shape[1]
    if width != len(model.class_names):
        raise _wrong(path, f"{width} logits for {len(model.class_names)} class_names")
    return model


def write_reason(path: Path, reason: str) -> None:
    """Write why there is no such file in its place: DVC wants every output of a stage to exist."""
    write_text(path, f"{_NO_FILE}{reason}\n")


def _read(path: Path) -> bytes:
    """Read a file once and compare it with its checksum."""
    if not path.is_file():
        raise ExportError(
            f"{path}: no such file; `dvc repro export_student` makes models/student/student.onnx"
        )
    try:
        size = path.stat().st_size
        if not 0 < size < _FILE_LIMIT_BYTES:
            raise ChecksumError(f"it has {size:,} bytes")
        content = path.read_bytes()
        if content.startswith(_NO_FILE.encode()):
            raise NoFileError(f"{path}: {printable(content.decode(errors='replace').rstrip())}")
        check_checksum(content)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror}); {_repair(path)}") from error
    except ChecksumError as error:
        raise ExportError(
            f"{path}: damaged, or not written by export_student: {error}; {_repair(path)}"
        ) from error
    return content


def _describe(session: onnxruntime.InferenceSession, path: Path) -> dict[str, Any]:
    """Read from the metadata what is needed to use the model, and check that the graph fits it.

    Returns:
        `class_names` and `image_size`.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    missing = {"class_names", "image_size"} - set(metadata)
    if missing:
        raise _wrong(path, f"metadata without {' and '.join(sorted(missing))}")
    names, size = _parse_names(metadata["class_names"]), metadata["image_size"]
    if names is None:
        raise _wrong(path, f"class_names {_shorten(metadata['class_names'])}, no list of names")
    if not (size.isascii() and size.isdecimal() and 1 <= int(size[:9]) <= _LARGEST_SIDE):
        raise _wrong(
            path, f"image_size {_shorten(size)}, no whole number from 1 to {_LARGEST_SIDE:,}"
        )
    inputs = [(node.name, node.type, list(node.shape[1:])) for node in session.get_inputs()]
    expected = (INPUT, "tensor(uint8)", [3, int(size), int(size)])
    if inputs != [expected]:
        raise _wrong(path, f"input {inputs}, where its metadata say {expected}")
    outputs = [(node.name, node.type, len(node.shape)) for node in session.get_outputs()]
    if outputs != [(OUTPUT, "tensor(float)", 2)]:
        raise _wrong(path, f"output {outputs}, where {OUTPUT} (batch, classes) are needed")
    return {"class_names": names, "image_size": int(size)}


def _parse_names(text: str) -> tuple[str, ...] | None:
    """Return the names in a JSON list; None where it is another thing."""
    try:
        names = parse_json(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not names:
        return None
    return tuple(names) if all(isinstance(name, str) and name for name in names) else None


def _wrong(path: Path, got: str) -> ExportError:
    return ExportError(
        f"{path}: got {got}; allowed: a file that the stage export_student wrote; {_repair(path)}"
    )


def _repair(path: Path) -> str:
    if path.name == INT8_FILE:
        return f"`git checkout -- {path}`, or `dvc repro --force export_student`, brings it back"
    return describe_repair(path, by="export_student")


def _shorten(text: str) -> str:
    return ascii(text if len(text) <= 40 else f"{text[:40]}…")
