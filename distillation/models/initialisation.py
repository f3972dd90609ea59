"""How a network starts that is given no weights."""

from __future__ import annotations

import torch
from torch import nn

_KEPT = 0.5
"""Share of the drawn weights that is kept beside the identity."""


@torch.no_grad()
def start_near_identity(net: nn.Module) -> None:
    """Let depthwise convolutions start near the identity, in place.

    Of what the architecture draws for their kernels half is kept, and 1 is added to the middle.
    So each channel starts with its own input, blurred at random, where a drawn kernel alone moves
    and mixes it; a stride or a normalisation that follows changes nothing about that. Dense
    convolutions start so in airbench (Jordan, arXiv 2404.00498). What it is worth for depthwise
    ones was measured for the default models (docs/results.md).

    Args:
        net: what it has beside depthwise convolutions of odd sides above 1 stays as it is.
    """
    for module in net.modules():
        if not isinstance(module, nn.Conv2d) or not _is_depthwise(module):
            continue
        height, width = module.kernel_size
        if height * width > 1 and height % 2 == width % 2 == 1:
            module.weight.mul_(_KEPT)
            module.weight[:, 0, height // 2, width // 2] += 1.0


def _is_depthwise(module: nn.Conv2d) -> bool:
    return module.groups == module.in_channels == module.out_channels > 1
