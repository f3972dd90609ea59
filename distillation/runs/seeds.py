"""The trainings of one method, one a seed, and what they say together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

SeedRecord = Mapping[str, Any]
"""Flat values of one training: `seed`, and what `runs.measured.SeedResult.record` returns."""

_ACC_DIGITS, _FRACTION_DIGITS = 4, 6


def combine_seeds(records: Sequence[SeedRecord]) -> dict[str, Any]:
    """Combine the trainings of one method to the flat values of its metrics file.

    Args:
        records: one a seed, at least one.

    Returns:
        Means over the seeds under the names the records have, `best_top5` where all have it;
        `gain_*`; sample deviations under `*_std`, None for one seed; `n`; and `saved_seed`, the
        seed with the best validation accuracy, whose weights are kept and whose `best_epoch` and
        `epochs` stand here.
    """

    def average(key: str, digits: int) -> float:
        return round(statistics.fmean([record[key] for record in records]), digits)

    def spread(key: str, digits: int) -> float | None:
        values = [record[key] for record in records]
        return round(statistics.stdev(values), digits) if len(values) > 1 else None

    saved = best_by_validation(records)
    combined: dict[str, Any] = {"n": len(records)}
    for name, digits in (("acc", _ACC_DIGITS), ("f1", _FRACTION_DIGITS)):
        gain = statistics.fmean(
            [record[f"after_{name}"] - record[f"before_{name}"] for record in records]
        )
        combined |= {
            f"before_{name}": average(f"before_{name}", digits),
            f"after_{name}": average(f"after_{name}", digits),
            f"gain_{name}": round(gain, digits),
        }
    combined |= {
        "before_loss": average("before_loss", _FRACTION_DIGITS),
        "after_loss": average("after_loss", _FRACTION_DIGITS),
        "best_acc": average("best_acc", _ACC_DIGITS),
        "best_f1": average("best_f1", _FRACTION_DIGITS),
        "best_ece": average("best_ece", _FRACTION_DIGITS),
        "after_acc_std": spread("after_acc", _ACC_DIGITS),
        "after_f1_std": spread("after_f1", _FRACTION_DIGITS),
        "best_acc_std": spread("best_acc", _ACC_DIGITS),
        "best_f1_std": spread("best_f1", _FRACTION_DIGITS),
        "validation_acc": None
        if any(record["validation_acc"] is None for record in records)
        else average("validation_acc", _ACC_DIGITS),
        "saved_seed": saved["seed"],
        "best_epoch": saved["best_epoch"],
        "epochs": saved["epochs"],
        "teacher_outputs": saved["teacher_outputs"],
    }
    if all("best_top5" in record for record in records):
        combined |= {
            "best_top5": average("best_top5", _ACC_DIGITS),
            "best_top5_std": spread("best_top5", _ACC_DIGITS),
        }
    return combined


def best_by_validation(records: Sequence[SeedRecord]) -> SeedRecord:
    """Return the training with the highest validation accuracy, the first of equals."""
    return max(
        records,
        key=lambda record: -1.0 if record["validation_acc"] is None else record["validation_acc"],
    )
