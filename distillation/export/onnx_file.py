"""Write a classifier as an ONNX file: the same weights give the same bytes.

The graph takes pixels (B, 3, S, S) uint8 and holds the model's own normalisation, so that nobody
has to know it. Running the file is the business of `sessions`.

Shapes: B batch, S = image_size, K classes.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from distillation.base.checksums import CHECKSUM_KEY
from distillation.export.checksum import PLACEHOLDER, fill_in_checksum
from distillation.export.errors import ExportError, refuse
from distillation.export.sessions import INPUT, OUTPUT
from distillation.models.classifier import Classifier
from distillation.models.layers import SmallMapConv2d

OPSET = 18
"""The version of ONNX's operators: the oldest that torch's exporter writes, for old runtimes."""

_LARGEST_BYTES = 2**31 - 2**20
"""An ONNX file is one protobuf message, of less than 2 GiB; the graph needs some of it."""


def export_onnx(
    model: Classifier,
    path: Path,
    *,
    image_size: int,
    metadata: Mapping[str, str],
    is_shipped: bool = True,
) -> None:
    """Write a classifier, in evaluation mode and float32, for batches of any size.

    Args:
        model: the classifier; it stays as it is.
        path: the file.
        image_size: S.
        metadata: entries of the file's `metadata_props`; its checksum is added to them.
        is_shipped: False for a file that is measured and thrown away. Torch's former exporter
            writes it in a tenth of the time where it can; it is no longer developed.

    Raises:
        ExportError: torch cannot express the model in ONNX, or it is too large for one file.
    """
    num_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    if num_bytes > _LARGEST_BYTES:
        raise ExportError(
            f"{model.name}: its weights have {num_bytes:,} bytes; allowed: at most "
            f"{_LARGEST_BYTES:,}, an ONNX file holds no more"
        )
    pixels = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)
    plain = plain_copy(model)
    try:
        with without_advice(), torch.no_grad():
            proto = None if is_shipped else _trace(plain, pixels)
            proto = proto or _export(plain, pixels)
    except Exception as error:
        raise refuse(f"{model.name} cannot be expressed in ONNX", error) from error
    _write(_without_traces(proto), path, metadata)


def _export(plain: Classifier, pixels: Tensor) -> onnx.ModelProto:
    program = torch.onnx.export(
        plain,
        (pixels,),
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=OPSET,
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
    )
    assert program is not None
    return program.model_proto


def _trace(plain: Classifier, pixels: Tensor) -> onnx.ModelProto | None:
    """Export by the former exporter; None where it cannot, and only the present one may."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traced.onnx"
        try:
            torch.onnx.export(
                plain,
                (pixels,),
                path,
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
        except RuntimeError:  # which its own errors are, too
            return None
        return onnx.load(path)


def set_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Give an ONNX file these entries of `metadata_props` in the place of those it has.

    Its checksum is computed anew.
    """
    _write(onnx.load(path), path, metadata)


def plain_copy(model: Classifier) -> Classifier:
    """Copy a classifier to the CPU, in evaluation mode and with torch's own convolutions.

    The short ways of `layers` for small maps would stand in the graph as reshapes and products; a
    runtime does better with convolutions.
    """
    plain = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()
    for module in plain.modules():
        if isinstance(module, SmallMapConv2d):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return plain


@contextmanager
def without_advice() -> Iterator[None]:
    """Silence what exporter and quantiser tell: each graph rewriting, deprecations inside them."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)


def _without_traces(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what torch notes about the way to the graph: lines of code and paths of a machine."""
    _clean(proto)
    return proto


def _clean(message: Any) -> None:
    """Clean a message of protobuf and all within it, such as the body of a loop."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                _clean(inner)


def _write(proto: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file with these entries of metadata and its checksum."""
    del proto.metadata_props[:]
    entries = {**metadata, CHECKSUM_KEY: PLACEHOLDER}
    for key in sorted(entries):
        proto.metadata_props.add(key=key, value=entries[key])
    path.write_bytes(fill_in_checksum(proto.SerializeToString(deterministic=True)))
