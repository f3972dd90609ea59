"""Views that show two samples: mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019).

A sample's partner, and how the two are mixed, are drawn from the hash of (view seed, sample, view
number), so a mixed view too is the same in any batch. The partner shows its own view of the same
number. The sample itself always has the larger share, so that a view keeps its label.

Shapes: B in the batch, M samples trained on, H and W height and width.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import torch
from torch import Tensor

from distillation.training.hashing import Draws, Stream

_UNIT_BITS = 8
_UNIT = 2**_UNIT_BITS
_HALF = _UNIT // 2
_DRAWN_BITS = 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """How views and those of their partners are put together."""

    weights: Tensor
    """(B, H, W, 1) or (B, 1, 1, 1) int32 in 0 … 256: the sample's weight at every pixel."""
    shares: Tensor
    """(B,) float32 in 0.5 … 1: the sample's share of its view, the weights' mean."""


def draw_partners(draws: Draws, candidates: Tensor) -> Tensor:
    """Draw the partner (B,) of each sample among the samples trained on (M,), itself included."""
    return candidates[draws.below(len(candidates), Stream.PARTNER)]


def draw_mixture(draws: Draws, *, height: int, width: int, mixup: float, cutmix: float) -> Mixture:
    """Draw how each view is mixed.

    The share comes from Beta(a, a) in steps of 1/256, the larger of the two. Mixup gives each pixel
    that weight. CutMix replaces a box of the other share's area, around a pixel that is drawn
    evenly; what lies outside the image is cut off and the share is that of the pixels that stay.

    Args:
        draws: the samples' random numbers.
        height: H.
        width: W.
        mixup: a for mixup; 0: none.
        cutmix: a for CutMix; 0: none. Where both are on, half of the views each, by the hash.
    """
    if not cutmix:
        share = _draw_shares(draws, mixup)
        return Mixture(weights=share.int()[:, None, None, None], shares=share.float() / _UNIT)
    is_kept, shares = _cut(draws, _draw_shares(draws, cutmix), height=height, width=width)
    weights = is_kept.int() * _UNIT
    if mixup:
        is_mixup = draws.below(2, Stream.MIXING) == 0
        share = _draw_shares(draws, mixup)
        weights = torch.where(is_mixup[:, None, None], share.int()[:, None, None], weights)
        shares = torch.where(is_mixup, share.float() / _UNIT, shares)
    return Mixture(weights=weights[..., None], shares=shares)


def mix(images: Tensor, partners: Tensor, mixture: Mixture) -> Tensor:
    """Put views and those of their partners together, rounded to the nearest level.

    Args:
        images: (B, 3, H, W) uint8 in channels_last memory format.
        partners: (B, 3, H, W) uint8, likewise.
        mixture: the weights.

    Returns:
        (B, 3, H, W) uint8 in channels_last memory format.
    """
    own, other = images.permute(0, 2, 3, 1).int(), partners.permute(0, 2, 3, 1).int()
    mixed = own.sub_(other).mul_(mixture.weights).add_(other, alpha=_UNIT).add_(_HALF)
    return (mixed >> _UNIT_BITS).to(torch.uint8).permute(0, 3, 1, 2)


def _draw_shares(draws: Draws, concentration: float) -> Tensor:
    """Draw the larger share (B,) int64 in 256ths, 128 … 256."""
    bounds = _share_bounds(concentration, draws.samples.device)
    drawn = draws.bits(Stream.SHARE) >> (32 - _DRAWN_BITS)
    return _HALF + torch.bucketize(drawn, bounds, right=True)


@functools.cache
def _share_bounds(concentration: float, device: torch.device) -> Tensor:
    """Return the distribution of the larger share: 2²⁴ · P(share < (k + ½) / 256), k = 128 … 255.

    X of Beta(a, a) and 1 − X are alike, so the larger one is below t with 2 · P(X < t) − 1.
    """
    from scipy.special import betainc  # a tenth of a second that only mixing takes

    edges = (np.arange(_HALF, _UNIT) + 0.5) / _UNIT
    below = 2 * betainc(concentration, concentration, edges) - 1
    return torch.tensor(np.rint(below * 2**_DRAWN_BITS).astype(np.int64), device=device)


def _cut(draws: Draws, share: Tensor, *, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return which pixels (B, H, W) bool stay, and the share (B,) float32 of those."""

    def span(length: int, stream: Stream) -> tuple[Tensor, Tensor]:
        half = _side_table(length, share.device)[share] // 2
        center = draws.below(length, stream)
        return (center - half).clamp(min=0), (center + half).clamp(max=length)

    def lies_between(length: int, first: Tensor, last: Tensor) -> Tensor:
        steps = torch.arange(length, device=share.device)
        return (steps >= first[:, None]) & (steps < last[:, None])

    top, bottom = span(height, Stream.CUT_ROWS)
    left, right = span(width, Stream.CUT_COLUMNS)
    rows, columns = lies_between(height, top, bottom), lies_between(width, left, right)
    kept = height * width - (bottom - top) * (right - left)
    return ~(rows[:, :, None] & columns[:, None, :]), kept.float() / (height * width)


@functools.cache
def _side_table(length: int, device: torch.device) -> Tensor:
    """Return a box's side by the share in 256ths that stays: ⌊length · √(1 − share)⌋."""
    shares = range(_UNIT + 1)
    sides = [math.isqrt(length * length * (_UNIT - share) // _UNIT) for share in shares]
    return torch.tensor(sides, device=device)
