"""Faster forms of layers; same parameters, same results but for rounding.

Shapes: B batch, I and O channels in and out, h × w the map's size.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SinglePixelConv2d(nn.Conv2d):
    """A convolution that knows a shorter way where the map is a single pixel.

    There all but the middle of the kernel meets the padding: what is left is a matrix product, or
    with one channel a group an elementwise one. That is so in every squeeze-and-excitation block,
    and in the last stages for small images, where the convolution's own set-up costs the CPU more
    than its arithmetic (docs/performance.md).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Give (B, O, h, w) from (B, I, h, w)."""
        if input.shape[2:] != (1, 1):
            return super().forward(input)
        middle = self.weight[:, :, self.kernel_size[0] // 2, self.kernel_size[1] // 2]
        pixels = input.flatten(1)
        if self.groups == 1:
            outputs = F.linear(pixels, middle, self.bias)
        else:
            outputs = pixels * middle[:, 0]
            if self.bias is not None:
                outputs = outputs + self.bias
        return outputs[:, :, None, None]


def use_single_pixel_convolutions(net: nn.Module) -> None:
    """Turn a network's convolutions into `SinglePixelConv2d` where that can be, in place.

    Those are plain ones, dense or depthwise, padded so that a pixel gives a pixel. Parameters,
    their names and the modules' identities stay as they are.
    """
    for module in net.modules():
        if type(module) is not nn.Conv2d or module.padding_mode != "zeros":
            continue
        is_depthwise = module.groups == module.in_channels == module.out_channels
        is_centred = all(size % 2 == 1 for size in module.kernel_size) and module.padding == tuple(
            size // 2 for size in module.kernel_size
        )
        if is_centred and module.dilation == (1, 1) and (module.groups == 1 or is_depthwise):
            module.__class__ = SinglePixelConv2d
