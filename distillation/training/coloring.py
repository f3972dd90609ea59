"""Colour jitter in whole numbers: brightness, contrast and saturation, each by a random factor.

The hue stays: turning it needs a change of colour space, and class often depends on it.

Shapes: B in the batch, H and W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distillation.training.hashing import Draws, Stream

_UNIT_BITS = 8
_UNIT = 2**_UNIT_BITS
_LUMA = (77, 150, 29)  # ITU-R 601 in 256ths


def jitter_colors(images: Tensor, draws: Draws, *, strength: float) -> Tensor:
    """Change brightness, then contrast, then saturation of each image.

    As torchvision's `ColorJitter`, which draws the order too: a factor in 1 − strength …
    1 + strength, in steps of 1/256, blends each image with black, with its mean grey, and with its
    own grey version.

    Args:
        images: (B, H, W, 3) uint8.
        draws: the samples' random numbers.
        strength: 0 … 1.

    Returns:
        (B, H, W, 3) uint8.
    """
    range_of_factors = round(strength * _UNIT)

    def factor(stream: Stream) -> Tensor:
        drawn = draws.below(2 * range_of_factors + 1, stream) + _UNIT - range_of_factors
        return drawn.int()[:, None, None, None]

    values = images.int()
    values = _blend(values, 0, factor(Stream.BRIGHTNESS))
    values = _blend(values, _mean(_gray(values)), factor(Stream.CONTRAST))
    return _blend(values, _gray(values), factor(Stream.SATURATION)).to(torch.uint8)


def _blend(values: Tensor, others: Tensor | int, factor: Tensor) -> Tensor:
    """Return factor · values + (1 − factor) · others in 256ths, rounded, within 0 … 255."""
    blended = values * factor + others * (_UNIT - factor) + _UNIT // 2
    return (blended >> _UNIT_BITS).clamp_(0, 255)


def _gray(values: Tensor) -> Tensor:
    """Return the luma (B, H, W, 1) int32."""
    red, green, blue = (values[..., channel : channel + 1] for channel in range(3))
    return (red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2] + _UNIT // 2) >> _UNIT_BITS


def _mean(gray: Tensor) -> Tensor:
    """Return the mean (B, 1, 1, 1) int32 over an image, rounded."""
    num_pixels = gray.shape[1] * gray.shape[2]
    sums = gray.sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64)
    return ((2 * sums + num_pixels) // (2 * num_pixels)).int()
