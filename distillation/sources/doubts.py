"""What a reader of accuracies on a prepared set must know; the provenance has the counts."""

from __future__ import annotations

from distillation.data.balance import measure_balance
from distillation.data.prepared import PreparedData

_SMALL_TEST = 100


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
    balance = measure_balance(data.test.labels, data.class_names)
    if balance.absent_classes:
        names = ", ".join(balance.absent_classes)
        doubts.append(f"test has no image of {names}: nothing is measured there")
    if balance.is_notable:
        doubts.append(
            f"{balance.majority_share:.1f} % of the test images are of class "
            f"{balance.majority_class}: always guessing it has that accuracy, so read macro-F1 "
            "beside every accuracy"
        )
    if len(data.test) < _SMALL_TEST:
        doubts.append(
            f"test has {len(data.test)} images: each is worth {100 / len(data.test):.1f} points of "
            "accuracy, and smaller differences mean nothing"
        )
    return doubts
