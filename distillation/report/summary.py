"""The summary table for people: every number of a method with what is known of its uncertainty."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from distillation.base.methods import CONTROL
from distillation.report.inputs import Inputs
from distillation.results.intervals import p_text
from distillation.results.table import summary_table, to_records, validation_accuracies
from distillation.runs.seeds import combine_seeds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A number as text, and in smaller type what belongs to it."""

    text: str
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A method's row."""

    method: str
    cells: list[Cell]


_COLUMNS = (  # heading, name in metrics/summary.csv
    ("over control", "acc_over_control"),
    ("after", "after_acc"),
    ("best", "best_acc"),
    ("before", "before_acc"),
    ("gain", "gain_acc"),
    ("after", "after_f1"),
    ("best", "best_f1"),
    ("before", "before_f1"),
    ("gain", "gain_f1"),
    ("seeds", "n"),
)
"""What stands after the validation accuracy: five of accuracy, four of macro-F1, the number."""
_TOP5_COLUMN = ("best", "best_top5")
_SIGNED = ("acc_over_control", "gain_acc", "gain_f1")


def choose_columns(inputs: Inputs) -> tuple[tuple[str, str], ...]:
    """Return heading and name of the columns after the validation accuracy."""
    *first, last = _COLUMNS
    return (*first, _TOP5_COLUMN, last) if inputs.has_top5 else _COLUMNS


def make_rows(inputs: Inputs) -> list[Row]:
    """Return the rows of all methods."""
    validation, columns = validation_accuracies(inputs.methods), choose_columns(inputs)
    rows = []
    for row in to_records(summary_table(inputs.methods)):
        method = row["exp"]
        values = {**combine_seeds(inputs.methods[method]), **row}
        rows.append(Row(method=method, cells=_cells(values, validation.get(method), columns)))
    return rows


def _cells(
    values: Mapping[str, Any], validation: float | None, columns: Sequence[tuple[str, str]]
) -> list[Cell]:
    cells = [Cell(text="–" if validation is None else f"{validation:.2f}")]
    for _, column in columns:
        value = values[column]
        if column == "n":
            cells.append(Cell(text=str(value)))
            continue
        text = number(value, digits=_digits(column), signed=column in _SIGNED)
        if column == "acc_over_control" and values["exp"] == CONTROL:
            text = "–"
        cells.append(Cell(text=text, note=_note(column, values)))
    return cells


def _note(column: str, values: Mapping[str, Any]) -> str:
    if column == "acc_over_control" and values["over_control_low"] is not None:
        low, high = values["over_control_low"], values["over_control_high"]
        interval = f"{number(low, signed=True)} … {number(high, signed=True)}"
        return f"{interval}, {p_text(values['over_control_p'])}"
    deviation = values.get(f"{column}_std")
    return "" if deviation is None else f"± {deviation:.{_digits(column)}f}"


def number(value: float | None, *, digits: int = 2, signed: bool = False) -> str:
    """Return a number with a true minus sign, or a dash where there is none."""
    if value is None:
        return "–"
    rounded = round(value, digits) + 0.0  # + 0.0 makes -0.0 a plain zero
    return f"{rounded:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def _digits(column: str) -> int:
    return 3 if column.endswith("f1") else 2


def share_of_lead(inputs: Inputs, method: str | None) -> float | None:
    """Return which share, in percent, of the teacher's lead over the control a method has closed.

    None without the control and a method beside it, or where the teacher does not lead.
    """
    if method is None or method == CONTROL or not inputs.has_control:
        return None
    share = inputs.outcome.measures[method]["gap_closed"]
    return None if share is None else 100.0 * share
