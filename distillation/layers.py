"""Faster forms of layers; same parameters, same results but for rounding.

Shapes: B batch, I and O channels in and out, h × w the map's size.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution that goes through a matrix product where the map is a single pixel.

    That is so in every squeeze-and-excitation block, and in the last stages of small images. There
    the convolution's own set-up costs the CPU more than its arithmetic: a training step of
    MobileNetV3-small took 7 to 24 % longer (docs/performance.md).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Give (B, O, h, w) from (B, I, h, w)."""
        if input.shape[2:] != (1, 1):
            return super().forward(input)
        return F.linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


def use_pointwise_convolutions(net: nn.Module) -> None:
    """Turn a network's plain 1×1 convolutions into `PointwiseConv2d`, in place.

    Parameters, their names and the modules' identities stay as they are.
    """
    for module in net.modules():
        is_plain = type(module) is nn.Conv2d and module.groups == 1 and module.padding == (0, 0)
        if is_plain and module.kernel_size == (1, 1) and module.stride == (1, 1):
            module.__class__ = PointwiseConv2d
