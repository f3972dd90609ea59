"""Run an exported classifier with ONNX Runtime.

It imports no torch, so that a program that only predicts starts quickly. How the files are made is
the business of `onnx_file` and `quantization`.

Shapes: N images, B batch, S = image_size, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from distillation.export.errors import ExportError

INPUT, OUTPUT = "images", "logits"
"""The names in the graph: (B, 3, S, S) uint8 goes in, (B, K) float32 comes out."""

_LARGEST_BATCH = 256
_LARGEST_BATCH_PIXELS = 2**20
"""Of all images of a batch together, so that large images do not take all of the memory."""

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
        return self._session.run([OUTPUT], {INPUT: pixels})[0]

    def predict_logits(
        self, images: NDArray[np.uint8], *, batch_size: int | None = None
    ) -> NDArray[np.float32]:
        """Return the logits (N, K) of images (N, S, S, 3), 0 … 255.

        Args:
            images: the images.
            batch_size: images at a time; None takes as many as go well.
        """
        batch_size = batch_size or choose_batch_size(self.image_size)
        chunks = [
            self.run(to_pixels(images[start : start + batch_size]))
            for start in range(0, len(images), batch_size)
        ]
        return np.concatenate(chunks or [np.empty((0, len(self.class_names)), np.float32)])


def choose_batch_size(image_size: int) -> int:
    """Choose how many images of S × S pixels a large batch has."""
    return max(1, min(_LARGEST_BATCH, _LARGEST_BATCH_PIXELS // image_size**2))


def to_pixels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring images (B, S, S, 3) into the order of the graph, (B, 3, S, S)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def load_exported(path: Path, *, num_threads: int | None = None) -> ExportedModel:
    """Open a file that the stage `export_student` wrote.

    Args:
        path: an ONNX file.
        num_threads: threads an operator may use; None leaves it to ONNX Runtime.

    Raises:
        ExportError: the file is missing, damaged, or was not written by that stage.
    """
    if not path.is_file():
        raise ExportError(
            f"{path}: no such file; `dvc repro export_student` makes models/student/student.onnx"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ALONE
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    try:
        session = onnxruntime.InferenceSession(
            path, sess_options=options, providers=["CPUExecutionProvider"]
        )
    # ONNX Runtime's own errors have nothing in common but Exception.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{path}: damaged, or no ONNX file: {reason}") from error
    return _describe(session, path)


def _describe(session: onnxruntime.InferenceSession, path: Path) -> ExportedModel:
    """Read what is needed to use the model, and check that its input is as agreed."""
    found = [(one.name, one.type) for one in session.get_inputs()]
    metadata = session.get_modelmeta().custom_metadata_map
    if found != [(INPUT, "tensor(uint8)")] or not {"class_names", "image_size"} <= set(metadata):
        raise ExportError(
            f"{path}: got inputs {found} and metadata {sorted(metadata)}; allowed: a file that "
            f"`dvc repro export_student` wrote, with the input {INPUT} (uint8)"
        )
    return ExportedModel(
        session,
        class_names=tuple(json.loads(metadata["class_names"])),
        image_size=int(metadata["image_size"]),
    )
