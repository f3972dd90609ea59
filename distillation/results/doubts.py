"""What the splits' classes do to the numbers: a large majority, classes without an image. No torch.

Accuracy under a large majority says little, and a class that is not there is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MOST_NAMES = 10


def majority_note(balance: Mapping[str, Any]) -> str | None:
    """Return what always predicting the largest class would score; None where it is no news.

    Args:
        balance: `data.balance.Balance.summary` of the test split.
    """
    if not balance["is_notable"]:
        return None
    return f"always predicting {balance['majority_class']}: {balance['majority_share']:.2f} %"


def class_doubts(balances: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say what a reader of the numbers must know of the classes, one sentence each.

    Args:
        balances: `data.balance.Balance.summary` of `test` and `validation`.
    """
    sentences = []
    if balances["test"]["is_notable"]:
        share, name = balances["test"]["majority_share"], balances["test"]["majority_class"]
        sentences.append(
            f"{share:.2f} % of the test images are {name}: always predicting it has that accuracy. "
            "Read macro-F1 beside every accuracy."
        )
    if absent := balances["test"]["absent_classes"]:
        sentences.append(
            f"The test split has no image of {_list(absent)}: nothing is measured there, and "
            "macro-F1 is the mean over the other classes."
        )
    if balances["validation"]["is_notable"]:
        share, name = (balances["validation"][k] for k in ("majority_share", "majority_class"))
        sentences.append(
            f"{share:.2f} % of the validation images are {name}: epochs and method are chosen by "
            "an accuracy that hardly sees the other classes."
        )
    if absent := balances["validation"]["absent_classes"]:
        sentences.append(
            f"The validation split has no image of {_list(absent)}: epochs and method are chosen "
            "without it, and macro-F1 there is the mean over the other classes."
        )
    return sentences


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")
