"""Augmented views as a pure function of (view seed, sample, view number).

The crop's offset and the flip come from a counter-based generator: a hash of those three numbers,
computed with integer tensor operations. View v of sample i is therefore the same picture on any
device, in any process, in any batch and in any order, so teacher and student, and every method, see
the same pixels, and what a teacher says of a view can be stored.

Shapes: B in the batch, H = W image size.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_STREAM_ROWS, _STREAM_COLUMNS, _STREAM_FLIP = 1, 2, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """What a view may do to an image."""

    view_seed: int
    crop_padding: int
    """Largest shift in pixels; the border is filled by reflection."""
    horizontal_flip: bool


def view_of_epoch(epoch: int, *, num_views: int, seed: int) -> int:
    """Return the number of the view that an epoch shows: each in turn, from a start the seed sets.

    Args:
        epoch: 0-based.
        num_views: how many views there are.
        seed: seed of the training run.
    """
    return (epoch + seed) % num_views


def views_of_passes(num_drawn: int, num_samples: int, *, epoch: int, seed: int) -> Tensor:
    """Return the view of each image of an epoch that goes through its samples several times.

    Every pass shows another view, and no view comes twice: nothing is looked up for them.

    Args:
        num_drawn: how many images the epoch shows.
        num_samples: how many samples there are; those drawn come in whole passes.
        epoch: 0-based.
        seed: seed of the training run.

    Returns:
        (num_drawn,) int64 on the host.
    """
    passes_of_an_epoch = -(-num_drawn // num_samples)
    return torch.arange(num_drawn) // num_samples + epoch * passes_of_an_epoch + seed


def augment(
    images: Tensor, samples: Tensor, view_number: int | Tensor, *, settings: ViewSettings
) -> Tensor:
    """Turn a batch of images into one view of each.

    Args:
        images: (B, H, W, 3) uint8.
        samples: (B,) int64, which sample of the data set each image is, on the same device.
        view_number: which view of every sample, one number or (B,) int64 on the same device.
        settings: seed and strength of the augmentation.

    Returns:
        (B, 3, H, W) uint8 in channels_last memory format.
    """
    height, width = images.shape[1], images.shape[2]
    padding = settings.crop_padding

    def draw(stream: int, num_values: int) -> Tensor:
        bits = random_bits(settings.view_seed, samples, view_number, stream)
        return (bits * num_values) >> 32  # (B,) uniform in 0 … num_values − 1

    steps = torch.arange(max(height, width), device=images.device)
    rows = steps[:height] + draw(_STREAM_ROWS, 2 * padding + 1)[:, None] - padding  # (B, H)
    columns = steps[:width] + draw(_STREAM_COLUMNS, 2 * padding + 1)[:, None] - padding
    if settings.horizontal_flip:
        is_flipped = draw(_STREAM_FLIP, 2)[:, None] == 1
        columns = torch.where(is_flipped, columns.flip(1), columns)
    rows, columns = _reflect(rows, height), _reflect(columns, width)
    positions = torch.arange(len(images), device=images.device)
    batch = images[positions[:, None, None], rows[:, :, None], columns[:, None, :]]
    return batch.permute(0, 3, 1, 2)


def random_bits(seed: int, samples: Tensor, view_number: int | Tensor, stream: int) -> Tensor:
    """Hash (seed, sample, view, stream) to 32 uniform bits in an int64 tensor shaped as `samples`.

    Each number is added in turn and scrambled by the finaliser of MurmurHash3 (Appleby, 2011),
    in int64 arithmetic masked to 32 bits, which torch does alike on every device.
    """
    bits = _scramble(torch.full_like(samples, seed & _MASK))
    for value in (samples, view_number, stream):
        bits = _scramble((bits * 5 + value + 0x9E3779B9) & _MASK)
    return bits


def _scramble(bits: Tensor) -> Tensor:
    bits = ((bits ^ (bits >> 16)) * 0x85EBCA6B) & _MASK
    bits = ((bits ^ (bits >> 13)) * 0xC2B2AE35) & _MASK
    return bits ^ (bits >> 16)


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Mirror positions that lie outside 0 … size − 1 back inside, the edge not repeated."""
    return (size - 1 - (size - 1 - positions.abs()).abs()).clamp_(0, size - 1)
