"""Count what is nearer to 0 than float32 has digits for (1e-38) as 0 while training.

The momentum of a weight that no longer gets a gradient, such as a dead channel's, shrinks by a
factor in every step, and after some 1,700 steps it stays there, between 1e-38 and 1e-45. Intel's
CPUs take many times as long for an operation with such a number: a step took up to four times as
long (docs/performance.md). No loss or accuracy changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_PARALLEL = 2**21
"""So many numbers are worked on by all threads."""


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Count denormal numbers as 0 within, in this thread and in those that it starts."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)  # NumPy warns where there are none


def set_threads(number: int) -> None:
    """Set the number of torch's threads, and start them so that all count denormals as 0."""
    torch.set_num_threads(number)
    with flushed_denormals():
        torch.ones(_PARALLEL).exp_()
