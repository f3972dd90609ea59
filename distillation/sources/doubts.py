"""What a reader of accuracies on a prepared set must know; the provenance has the counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distillation.data.prepared import PreparedData

_SMALL_TEST = 100
_LARGE_SHARE, _ALWAYS_LARGE_SHARE = 0.3, 2 / 3


def majority_share(labels: NDArray[np.int64]) -> float:
    """Return the share of the largest class: the accuracy of always guessing it."""
    return float(np.bincount(labels).max() / len(labels))


def is_imbalanced(share: float, num_classes: int) -> bool:
    """Tell whether the largest class has so large a share that accuracies deceive.

    That is more than twice its even share and more than 0.3, or more than two thirds.
    """
    return share > min(_ALWAYS_LARGE_SHARE, max(_LARGE_SHARE, 2 / num_classes))


def find_doubts(data: PreparedData) -> list[str]:
    """Return the doubts, a sentence each."""
    doubts = []
    for name, repeated in data.provenance["also_in_train"].items():
        if repeated["images"]:
            other = repeated["with_another_label"]
            of_these = f", {other} of them in another class" if other else ""
            doubts.append(
                f"{repeated['images']} of {len(getattr(data, name))} {name} images are in train "
                f"too, pixel by pixel{of_these}: accuracies on {name} are better than they should"
            )
    counts = np.bincount(data.test.labels, minlength=data.num_classes)
    missing = np.flatnonzero(counts == 0)
    if len(missing):
        names = ", ".join(data.class_names[index] for index in missing)
        doubts.append(f"test has no image of {names}: nothing is measured there")
    share = data.provenance["majority_share"]["test"]
    if is_imbalanced(share, data.num_classes):
        doubts.append(
            f"{100 * share:.1f} % of the test images are of class "
            f"{data.class_names[int(counts.argmax())]}: always guessing it has that accuracy, so "
            "read macro-F1 beside every accuracy"
        )
    if len(data.test) < _SMALL_TEST:
        doubts.append(
            f"test has {len(data.test)} images: each is worth {100 / len(data.test):.1f} points of "
            "accuracy, and smaller differences mean nothing"
        )
    return doubts
