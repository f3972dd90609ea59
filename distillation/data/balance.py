"""How evenly a split's images are spread over the classes: what accuracy a constant answer has.

Shapes: N samples, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOTABLE_POINTS = 10.0
"""By so many points, or more, the largest class's share is above an even one when it is notable."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balance:
    """The largest class of a split, and the classes that it lacks."""

    num_images: int
    majority_class: str
    """The largest class; of equals the first."""
    majority_share: float
    """Its share in percent: the accuracy of always predicting it."""
    is_notable: bool
    """Whether an accuracy should not be read without that share."""
    absent_classes: tuple[str, ...]
    """Classes without an image."""

    def summary(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {**dataclasses.asdict(self), "absent_classes": list(self.absent_classes)}


def measure_balance(labels: NDArray[np.int64], class_names: Sequence[str]) -> Balance:
    """Measure a split with labels (N,) of K classes; N is at least 1."""
    counts = np.bincount(labels, minlength=len(class_names))
    largest = int(counts.argmax())
    share = 100.0 * float(counts[largest]) / len(labels)
    return Balance(
        num_images=len(labels),
        majority_class=class_names[largest],
        majority_share=round(share, 4),
        is_notable=share >= 100.0 / len(class_names) + NOTABLE_POINTS,
        absent_classes=tuple(
            name for name, count in zip(class_names, counts, strict=True) if not count
        ),
    )
