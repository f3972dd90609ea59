"""Random numbers of a view, as a hash of (view seed, sample, view number, stream).

A counter-based generator in integer tensor operations, which torch does alike on every device: what
is drawn for a sample depends neither on its batch nor on what was drawn before.

Shapes: B samples.
"""

from __future__ import annotations

import dataclasses
import enum

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


class Stream(enum.IntEnum):
    """What a number is drawn for: each draw of a view has a stream of its own."""

    ROWS = 1
    COLUMNS = 2
    FLIP = 3
    BRIGHTNESS = 4
    CONTRAST = 5
    SATURATION = 6
    PARTNER = 7
    MIXING = 8
    SHARE = 9
    CUT_ROWS = 10
    CUT_COLUMNS = 11
    BOX = 32
    """The first of several, one per attempt."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws:
    """The random numbers of one view of each of some samples."""

    seed: int
    """The view seed."""
    samples: Tensor
    """(B,) int64, as indices into the data set."""
    view_number: int | Tensor
    """One number, or (B,) int64 on the same device."""

    def bits(self, stream: int | Tensor) -> Tensor:
        """Return 32 uniform bits per sample, (B,) int64; (A, B) for streams (A, 1)."""
        return random_bits(self.seed, self.samples, self.view_number, stream)

    def below(self, limit: int | Tensor, stream: int) -> Tensor:
        """Return (B,) int64, uniform in 0 … limit − 1; the limit is a number or (B,)."""
        return (self.bits(stream) * limit) >> 32


def random_bits(
    seed: int, samples: Tensor, view_number: int | Tensor, stream: int | Tensor
) -> Tensor:
    """Hash (seed, sample, view, stream) to 32 uniform bits in an int64 tensor shaped as `samples`.

    Each number is added in turn and scrambled by the finaliser of MurmurHash3 (Appleby, 2011),
    in int64 arithmetic masked to 32 bits. Streams (A, 1) give (A, B).
    """
    bits = _scramble(torch.full_like(samples, seed & _MASK))
    for value in (samples, view_number, stream):
        bits = _scramble((bits * 5 + value + 0x9E3779B9) & _MASK)
    return bits


def _scramble(bits: Tensor) -> Tensor:
    bits = ((bits ^ (bits >> 16)) * 0x85EBCA6B) & _MASK
    bits = ((bits ^ (bits >> 13)) * 0xC2B2AE35) & _MASK
    return bits ^ (bits >> 16)
