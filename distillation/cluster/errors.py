"""What can go wrong with a sweep."""

from __future__ import annotations

from distillation.base.errors import DistillationError


class SweepError(DistillationError):
    """A sweep cannot start, or not all of its variants have run."""
