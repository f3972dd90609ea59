"""Which arm's student is shipped: chosen on the validation split, or by name; never on test."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from distillation.export.errors import ExportError
from distillation.methods import CONTROL
from distillation.results import best_arm
from distillation.seeds import SeedRecord, best_by_validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The arm, the training of it whose weights are kept, and why."""

    arm: str
    record: SeedRecord
    reason: str
    """A sentence."""
    is_trained: bool
    """False where no epoch was run: the student is as it started."""


def choose_arm(arms: Mapping[str, Sequence[SeedRecord]], *, wanted: str | None = None) -> Choice:
    """Choose the arm with the best mean validation accuracy, of equals the first in the table.

    Args:
        arms: the trainings of each arm.
        wanted: the arm to take instead.

    Returns:
        The choice; where no arm was trained it is the control, and the reason says so.

    Raises:
        ExportError: the arm that is wanted is not among them, or no control is.
    """
    best = best_arm(arms)
    arm = wanted or best or CONTROL
    if arm not in arms:
        raise ExportError(f"export_arm: got {arm!r}; allowed: {', '.join(arms)}, or null")
    record = best_by_validation(arms[arm])
    is_trained = record["validation_acc"] is not None
    if wanted is not None:
        reason = f"The parameter export_arm names {arm}."
    elif best is not None:
        reason = f"Of {len(arms)} arms, {arm} has the best mean accuracy on the validation split."
    else:
        reason = "No arm was trained (epochs: 0): this is the student as it starts."
    return Choice(arm=arm, record=record, reason=reason, is_trained=is_trained)
