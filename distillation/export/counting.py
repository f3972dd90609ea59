"""How large a model is, and how much arithmetic an image costs it.

Shapes: S = image_size.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Count the trainable numbers; a normalisation's running statistics are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_multiply_adds(model: nn.Module, image_size: int) -> int:
    """Count multiplications with addition for one image (1, 3, S, S) uint8.

    Convolutions and matrix products count, padding included; elementwise work does not. That is
    what papers call multiply–adds, MACs or, loosely, FLOPs.

    Args:
        model: a classifier with torch's own layers, on the CPU and in evaluation mode
            (`onnx_file.plain_copy`).
        image_size: S.
    """
    image = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
    counter = FlopCounterMode(display=False)
    # As matrix products, attention is counted on every device.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(image)
    return counter.get_total_flops() // 2
