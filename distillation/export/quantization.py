"""Turn an ONNX file into one with 8-bit weights and activations, calibrated on images.

Shapes: N images, S = image_size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from PIL import Image

from distillation.export.errors import refuse
from distillation.export.onnx_file import set_metadata, without_advice
from distillation.export.sessions import INPUT, choose_batch_size, to_pixels

NUM_CALIBRATION_IMAGES = 512
_CALIBRATION_SEED = 0
_LARGEST_BATCH = 64


def choose_calibration_images(images: NDArray[np.uint8], *, image_size: int) -> NDArray[np.uint8]:
    """Choose up to `NUM_CALIBRATION_IMAGES` training images, always the same, in random order.

    Sets lie in the order of their classes, and every batch should hold many of them.

    Args:
        images: (N, H, H, 3), where H may be larger than S.
        image_size: S, to which they are scaled as images to classify are.
    """
    order = np.random.default_rng(_CALIBRATION_SEED).permutation(len(images))
    chosen = (images[index] for index in order[:NUM_CALIBRATION_IMAGES])
    return np.stack([_scale(image, image_size) for image in chosen])


def quantize(source: Path, target: Path, *, images: NDArray[np.uint8]) -> None:
    """Quantise a file statically, with pairs of QuantizeLinear and DequantizeLinear.

    Weights have a sign and a scale for each output channel, and 7 of their 8 bits are used: where
    a CPU adds 8-bit products in 16 bits (x86 before VNNI), all 8 would saturate. Activations have
    8 bits without a sign. Their range is the mean over the batches' smallest and largest values, so
    that one extreme value does not spread 256 levels thin (measured in docs/deploy.md).

    Args:
        source: a file of `export_onnx`.
        target: the file to write, with the same metadata.
        images: (N, S, S, 3), for calibration.

    Raises:
        ExportError: the quantiser cannot do it.
    """
    proto = onnx.load(source)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    try:
        with without_advice():
            quantize_static(
                proto,
                target,
                _Batches(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=_find_infinite_pads(proto),
                extra_options={"CalibMovingAverage": True},  # ONNX Runtime's name for that mean
            )
    # Its errors, and ONNX Runtime's, have nothing in common but Exception.
    except Exception as error:
        name = metadata.get("architecture", source.name)
        raise refuse(f"{name} cannot be brought to 8 bits", error) from error
    set_metadata(target, metadata)


def _find_infinite_pads(proto: onnx.ModelProto) -> list[str]:
    """Return nodes that pad with -inf, as timm's max-pooling does, and what they feed.

    A range that reaches to -inf has no scale: the file would say the same of every image.
    """
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    pads = [
        node
        for node in proto.graph.node
        if node.op_type == "Pad"
        and len(node.input) > 2
        and not np.isfinite(constants.get(node.input[2], 0.0)).all()
    ]
    padded = {name for node in pads for name in node.output}
    fed = [node for node in proto.graph.node if padded & set(node.input)]
    return [node.name for node in [*pads, *fed]]


def _scale(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


class _Batches(CalibrationDataReader):
    """Hands calibration images out, batch by batch."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        size = min(_LARGEST_BATCH, choose_batch_size(images.shape[1]))
        self._batches = iter(
            [images[start : start + size] for start in range(0, len(images), size)]
        )

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch as the graph's input; None when there is none left."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: to_pixels(batch)}
