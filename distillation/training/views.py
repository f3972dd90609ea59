"""Augmented views as a pure function of (view seed, sample, view number).

All that is random comes from a hash of those three numbers, and all else is computed in whole
numbers. View v of sample i is therefore the same picture on any device, in any process, in any
batch and in any order, so teacher and student, and every method, see the same pixels, and what a
teacher says of a view can be stored. `mixing` makes views of two samples out of these.

Shapes: B in the batch, H = W image size.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from distillation.training.coloring import jitter_colors
from distillation.training.cropping import ResizedCrop, draw_boxes, resized_crop
from distillation.training.hashing import Draws, Stream
from distillation.training.hashing import random_bits as random_bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """What a view may do to an image."""

    view_seed: int
    crop_padding: int
    """Largest shift in pixels; the border is filled by reflection."""
    horizontal_flip: bool
    resized_crop: ResizedCrop | None = None
    """The random boxes that take the place of the shift; None: shifted by `crop_padding`."""
    color_jitter: float = 0.0
    """Strength of the changes of brightness, contrast and saturation, 0 … 1; 0: none."""
    mixup: float = 0.0
    """a of the Beta(a, a) a mixup's share is drawn from; 0: none."""
    cutmix: float = 0.0
    """a of the Beta(a, a) a CutMix's share is drawn from; 0: none."""

    @property
    def mixes(self) -> bool:
        """Return whether views show two samples."""
        return self.mixup > 0 or self.cutmix > 0


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
    """Turn a batch of images into one view of each, not mixed with another's.

    Args:
        images: (B, H, W, 3) uint8; H = W for resized crops.
        samples: (B,) int64, which sample of the data set each image is, on the same device.
        view_number: which view of every sample, one number or (B,) int64 on the same device.
        settings: seed and strength of the augmentation.

    Returns:
        (B, 3, H, W) uint8 in channels_last memory format; H = W = S for resized crops.
    """
    draws = Draws(seed=settings.view_seed, samples=samples, view_number=view_number)
    is_flipped = draws.below(2, Stream.FLIP) == 1 if settings.horizontal_flip else None
    crop = settings.resized_crop
    if crop is None:
        views = _shift(images, draws, padding=settings.crop_padding, is_flipped=is_flipped)
    else:
        views = resized_crop(
            images,
            draw_boxes(draws, images.shape[1], crop),
            is_flipped=is_flipped,
            size=crop.size,
            interpolation=crop.interpolation,
        )
    if settings.color_jitter:
        views = jitter_colors(views, draws, strength=settings.color_jitter)
    return views.permute(0, 3, 1, 2)


def _shift(images: Tensor, draws: Draws, *, padding: int, is_flipped: Tensor | None) -> Tensor:
    """Shift images (B, H, W, 3) by up to `padding` pixels, the border reflected; mirror some."""
    height, width = images.shape[1], images.shape[2]
    steps = torch.arange(max(height, width), device=images.device)
    rows = steps[:height] + draws.below(2 * padding + 1, Stream.ROWS)[:, None] - padding  # (B, H)
    columns = steps[:width] + draws.below(2 * padding + 1, Stream.COLUMNS)[:, None] - padding
    if is_flipped is not None:
        columns = torch.where(is_flipped[:, None], columns.flip(1), columns)
    rows, columns = _reflect(rows, height), _reflect(columns, width)
    positions = torch.arange(len(images), device=images.device)
    return images[positions[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Mirror positions that lie outside 0 … size − 1 back inside, the edge not repeated."""
    return (size - 1 - (size - 1 - positions.abs()).abs()).clamp_(0, size - 1)
