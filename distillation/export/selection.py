"""Which method's student is shipped: chosen on the validation split, or by name; never on test."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from distillation.base.methods import CONTROL
from distillation.export.errors import ExportError
from distillation.results.table import best_methods
from distillation.runs.seeds import SeedRecord, best_by_validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """The method, the training of it whose weights are kept, and why."""

    method: str
    record: SeedRecord
    reason: str
    """A sentence."""
    is_trained: bool
    """False where no epoch was run: the student is as it started."""


def select_method(
    methods: Mapping[str, Sequence[SeedRecord]], *, wanted: str | None = None
) -> Selection:
    """Choose the method with the best mean validation accuracy, of equals the first in the table.

    Args:
        methods: the trainings of each method.
        wanted: the method to take instead.

    Returns:
        The selection; where no method was trained it is the control, and the reason says so.

    Raises:
        ExportError: the method that is wanted is not among them, or no control is.
    """
    best = best_methods(methods)
    method = wanted or next(iter(best), CONTROL)
    if method not in methods:
        raise ExportError(f"export_method: got {method!r}; allowed: {', '.join(methods)}, or null")
    record = best_by_validation(methods[method])
    is_trained = record["validation_acc"] is not None
    if wanted is not None:
        reason = f"The parameter export_method names {method}."
    elif best:
        others = f", as {' and '.join(best[1:])} {'has' if len(best) == 2 else 'have'}"
        reason = (
            f"Of {len(methods)} methods, {method} has the best mean accuracy on the validation "
            f"split{others if len(best) > 1 else ''}."
        )
    else:
        reason = "No method was trained (epochs: 0): this is the student as it starts."
    return Selection(method=method, record=record, reason=reason, is_trained=is_trained)
