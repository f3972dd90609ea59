"""Resized crops: a random box of each image, resampled to one size.

Box and weights are whole numbers, computed without rounding that a device could do differently. A
crop is two matrix products per image, columns and then rows. All numbers in them are whole and
below 2²⁴, and no factor has more than 11 binary digits, so float32 is exact in any order of
summation, TF32 as well. Agrees with Pillow's `resize(box=…)`, which rounds its weights less, to a
level or two.

Shapes: B in the batch, P height and width of the images, S that of the crops, T taps of a filter.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
from torch import Tensor

from distillation.training.hashing import Draws, Stream

_ATTEMPTS = 10
_STEPS = 1024
"""How many areas, and how many aspects, can be drawn."""
_POINT_BITS = 16
"""Binary places of the tables' numbers."""
_UNIT_BITS = 10
_UNIT = 2**_UNIT_BITS
"""The sum of an output pixel's weights."""
_SUPPORT = {"bilinear": 1, "bicubic": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResizedCrop:
    """Which boxes are cropped, and how they are resampled."""

    size: int
    """S in pixels."""
    min_area: float
    """Smallest share of the image's area."""
    max_area: float
    min_aspect: float
    """Smallest width over height; aspects are drawn evenly in their logarithm."""
    max_aspect: float
    interpolation: str
    """`bilinear` or `bicubic`, smoothed where a box shrinks, as Pillow does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boxes:
    """One box per image in whole pixels, each (B,) int64."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def draw_boxes(draws: Draws, side: int, settings: ResizedCrop) -> Boxes:
    """Draw a box for each sample, as torchvision's `RandomResizedCrop` does.

    Area and aspect are drawn until the box fits into the image; after ten boxes that do not, it is
    the largest one in the middle whose aspect is allowed.

    Args:
        draws: the samples' random numbers.
        side: P.
        settings: the areas and aspects.
    """
    device = draws.samples.device
    attempts = torch.arange(_ATTEMPTS, device=device)[:, None]
    bits = draws.bits(attempts + int(Stream.BOX))  # (attempts, B)
    roots, tall, wide = _tables(settings, device)
    area = side * roots[bits >> 22]
    aspect = (bits >> 12) & (_STEPS - 1)
    heights, widths = (_round(area * table[aspect]) for table in (tall, wide))
    fits = (heights <= side) & (widths <= side)
    first = torch.where(fits, attempts, _ATTEMPTS).amin(dim=0, keepdim=True)  # (1, B)
    whole_height, whole_width = _largest(side, settings)

    def choose(sizes: Tensor, otherwise: int) -> Tensor:
        last = torch.full_like(sizes[:1], otherwise)
        return torch.cat([sizes, last]).gather(0, first)[0].clamp(min=1)

    height, width = choose(heights, whole_height), choose(widths, whole_width)
    is_middle = first[0] == _ATTEMPTS

    def place(length: Tensor, stream: Stream) -> Tensor:
        room = side - length
        return torch.where(is_middle, room // 2, draws.below(room + 1, stream))

    return Boxes(
        top=place(height, Stream.ROWS),
        left=place(width, Stream.COLUMNS),
        height=height,
        width=width,
    )


def resized_crop(
    images: Tensor, boxes: Boxes, *, is_flipped: Tensor | None, size: int, interpolation: str
) -> Tensor:
    """Crop a box of each image and resample it.

    As in Pillow, a filter that reaches beyond its box sees the image around it.

    Args:
        images: (B, P, P, 3) uint8.
        boxes: one per image.
        is_flipped: (B,) bool, which crops are mirrored from left to right; None: none.
        size: S.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        (B, S, S, 3) uint8.
    """
    num_images, side, width, _ = images.shape
    assert side == width, "prepared images are square"
    steps = torch.arange(size, device=images.device)
    columns = steps.expand(num_images, size)
    if is_flipped is not None:
        columns = torch.where(is_flipped[:, None], size - 1 - steps, columns)
    resample = functools.partial(
        resampling_weights, size=size, side=side, interpolation=interpolation
    )
    by_row = resample(boxes.top, boxes.height, steps.expand(num_images, size))
    by_column = resample(boxes.left, boxes.width, columns)
    # Autocast would round to bfloat16. Columns first, as Pillow: both passes end at 0 … 255.
    with torch.autocast(images.device.type, enabled=False):
        by_x = images.transpose(1, 2).reshape(num_images, side, side * 3)
        narrow = _to_levels(by_column @ by_x.float()).view(num_images, size, side, 3)
        by_y = narrow.transpose(1, 2).reshape(num_images, side, size * 3)
        return _to_levels(by_row @ by_y.float()).view(num_images, size, size, 3)


def resampling_weights(
    start: Tensor, length: Tensor, outputs: Tensor, *, size: int, side: int, interpolation: str
) -> Tensor:
    """Return by how much each of P pixels counts in each of S output pixels along one dimension.

    With d the distance of a pixel's centre from the output pixel's, in units of the filter's
    scale, d = n / D in whole numbers; the filter's value times D (bilinear) or 2 D³ (bicubic) is
    whole too. The weights of an output pixel are rounded so that their sum is exactly 1024.

    Args:
        start: (B,) int64, the first pixel of the box.
        length: (B,) int64, how many pixels it has.
        outputs: (B, S) int64, which output pixel each row of the result is for.
        size: S.
        side: P.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        (B, S, P) float32, whole numbers.
    """
    support = _SUPPORT[interpolation]
    span = length.clamp(min=size)[:, None]  # the filter's scale times S
    center = 2 * size * start[:, None] + (2 * outputs + 1) * length[:, None]  # in 1 / (2 S) pixels
    first = torch.div(center - 2 * support * span, 2 * size, rounding_mode="floor")
    num_taps = 2 * support * max(side, size) // size + 2
    taps = first[:, :, None] + torch.arange(num_taps, device=start.device)  # (B, S, T)
    distance = (2 * size * taps + size - center[:, :, None]).abs()
    values = _FILTERS[interpolation](distance, 2 * span[:, :, None])
    values = torch.where((taps >= 0) & (taps < side), values, 0)
    sums = values.cumsum(dim=2)
    total = sums[:, :, -1:]
    rounded = torch.div(2 * _UNIT * sums + total, 2 * total, rounding_mode="floor")
    weights = rounded.diff(dim=2, prepend=torch.zeros_like(total)).float()
    dense = torch.zeros((*outputs.shape, side), device=start.device)
    return dense.scatter_add_(2, taps.clamp_(0, side - 1), weights)


def _bilinear(distance: Tensor, scale: Tensor) -> Tensor:
    """Return D · (1 − |d|), 0 from |d| = 1 on, for n = `distance` and D = `scale`."""
    return (scale - distance).clamp_(min=0)


def _bicubic(distance: Tensor, scale: Tensor) -> Tensor:
    """Return 2 D³ times Pillow's cubic (a = −0.5), 0 from |d| = 2 on."""
    inner = distance**2 * (3 * distance - 5 * scale) + 2 * scale**3
    outer = distance * (distance * (5 * scale - distance) - 8 * scale**2) + 4 * scale**3
    return torch.where(distance < scale, inner, torch.where(distance < 2 * scale, outer, 0))


_FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic}


def _to_levels(sums: Tensor) -> Tensor:
    """Divide weighted sums by 1024, round to the nearest level, halves up; changes `sums`."""
    return sums.add_(_UNIT // 2).mul_(1 / _UNIT).clamp_(0, 255).to(torch.uint8)


def _round(values: Tensor) -> Tensor:
    """Take whole numbers with 32 binary places to the nearest without."""
    return (values + (1 << (2 * _POINT_BITS - 1))) >> (2 * _POINT_BITS)


@functools.cache
def _tables(settings: ResizedCrop, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return √area, 1 / √aspect and √aspect of every area and aspect, with 16 binary places."""
    places = [(step + 0.5) / _STEPS for step in range(_STEPS)]
    low, high = math.log(settings.min_aspect), math.log(settings.max_aspect)
    areas = [settings.min_area + (settings.max_area - settings.min_area) * p for p in places]
    halves = [(low + (high - low) * p) / 2 for p in places]

    def to_table(values: list[float]) -> Tensor:
        return torch.tensor([round(v * 2**_POINT_BITS) for v in values], device=device)

    return (
        to_table([math.sqrt(area) for area in areas]),
        to_table([math.exp(-half) for half in halves]),
        to_table([math.exp(half) for half in halves]),
    )


def _largest(side: int, settings: ResizedCrop) -> tuple[int, int]:
    """Return height and width of the largest box with an allowed aspect."""
    if settings.min_aspect > 1:
        return round(side / settings.min_aspect), side
    if settings.max_aspect < 1:
        return side, round(side * settings.max_aspect)
    return side, side
