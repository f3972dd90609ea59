"""The summary table: one row per method, the control first, as JSON, CSV and Markdown.

It works on the flat metrics that every training leaves behind and imports no torch.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from distillation.base.methods import CONTROL, sort_methods
from distillation.results.intervals import (
    Difference,
    correct_by_holm,
    mean,
    p_text,
    paired_difference,
)
from distillation.runs.seeds import SeedRecord, combine_seeds

SUMMARY_COLUMNS = (
    "exp",
    "before_acc",
    "after_acc",
    "gain_acc",
    "before_f1",
    "after_f1",
    "gain_f1",
    "best_acc",
    "best_f1",
)
OVER_CONTROL_COLUMN = "acc_over_control"
"""after_acc minus the control's: what distillation adds to training by labels alone."""
COMPARED_COLUMNS = ("after_acc", "after_f1", "gain_acc", OVER_CONTROL_COLUMN)
"""What `dvc metrics` and `dvc exp show` compare: as few as a terminal has room for."""
SPREAD_COLUMNS = (
    "over_control_low",
    "over_control_high",
    "over_control_p",
    "after_acc_std",
    "after_f1_std",
    "best_acc_std",
    "best_f1_std",
    "n",
)
"""The 95 % confidence interval of `acc_over_control` and its p, by Holm for all methods together;
deviations over seeds, number of seeds."""


def summary_table(methods: Mapping[str, Sequence[SeedRecord]]) -> pd.DataFrame:
    """Build the summary table from the methods' trainings.

    Args:
        methods: the trainings of each method, one per seed, by name; accuracy in percent, macro-F1
            a fraction.

    Returns:
        `SUMMARY_COLUMNS`, `OVER_CONTROL_COLUMN` and `SPREAD_COLUMNS`; the control is the first row
        where there is one, and without it what compares with it is empty.
    """
    leads = {name: difference(methods, name, CONTROL) for name in sort_methods(methods)}
    p_values = correct_by_holm(
        {name: over.p_value for name, over in leads.items() if over and name != CONTROL}
    )
    rows = []
    for name, over in leads.items():
        combined = combine_seeds(methods[name])
        rows.append(
            {
                "exp": name,
                **combined,
                OVER_CONTROL_COLUMN: None if over is None else _round(over.mean),
                "over_control_low": None if over is None or name == CONTROL else _round(over.low),
                "over_control_high": None if over is None or name == CONTROL else _round(over.high),
                "over_control_p": _round(p_values.get(name)),
            }
        )
    columns = [*SUMMARY_COLUMNS, OVER_CONTROL_COLUMN, *SPREAD_COLUMNS]
    table = pd.DataFrame(rows, columns=columns)
    for column in columns[1:-1]:
        table[column] = table[column].astype(float)
    return table


def difference(
    methods: Mapping[str, Sequence[SeedRecord]], first: str, second: str, key: str = "after_acc"
) -> Difference | None:
    """Return one method's lead over another, paired by seed; None where there are no pairs."""
    if first not in methods or second not in methods:
        return None
    by_seed = [
        {record["seed"]: record[key] for record in methods[name]} for name in (first, second)
    ]
    return paired_difference(*by_seed)


def validation_accuracies(methods: Mapping[str, Sequence[SeedRecord]]) -> dict[str, float]:
    """Return the mean validation accuracy, in percent, of each trained method, in order."""
    return {
        name: mean([record["validation_acc"] for record in methods[name]])
        for name in sort_methods(methods)
        if all(record["validation_acc"] is not None for record in methods[name])
    }


def best_methods(methods: Mapping[str, Sequence[SeedRecord]]) -> list[str]:
    """Choose the methods with the best mean validation accuracy at their best epochs.

    Returns:
        In the order of the table, almost always one; of equals the first is taken, so the control
        before any method. Empty when no method was trained.
    """
    accuracies = validation_accuracies(methods)
    # A mean of shares of the images: equal ones may differ in the last bits.
    return [name for name, acc in accuracies.items() if math.isclose(acc, max(accuracies.values()))]


def to_markdown(table: pd.DataFrame) -> str:
    """Return the table as GitHub Markdown: mean ± deviation, and the interval in brackets."""
    cells = _readable(table)
    header = "| " + " | ".join(cells.columns) + " |"
    rule = "|" + "|".join([" --- "] + [" ---: "] * (len(cells.columns) - 1)) + "|"
    lines = ["| " + " | ".join(row) + " |" for row in cells.to_numpy().tolist()]
    return "\n".join([header, rule, *lines]) + "\n"


def to_text(table: pd.DataFrame) -> str:
    """Return the table for a terminal."""
    return _readable(table).to_string(index=False) + "\n"


def to_csv(table: pd.DataFrame, *, source: str) -> str:
    """Return the table as CSV, with a last column `data` that says what the images are."""
    buffer = io.StringIO()
    table.assign(data=source).to_csv(buffer, index=False)
    return buffer.getvalue()


def to_records(table: pd.DataFrame) -> Sequence[dict[str, Any]]:
    """Return the table as JSON-ready rows, null where a value is missing."""
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as text, deviations and interval in the cells of what they belong to."""
    shown = [column for column in table.columns if column not in SPREAD_COLUMNS] + ["n"]
    rows = [{column: _cell(column, row) for column in shown} for row in table.to_dict("records")]
    return pd.DataFrame(rows, columns=shown)


def _cell(column: str, row: Mapping[Any, Any]) -> str:
    value = row[column]
    if isinstance(value, str) or column == "n":
        return str(value)
    text = _number(column, value)
    spread, low = row.get(f"{column}_std"), row["over_control_low"]
    if not pd.isna(spread) and spread is not None:
        text += f" ± {spread:.{_digits(column)}f}"
    if column == OVER_CONTROL_COLUMN and not pd.isna(low):
        high = row["over_control_high"]
        text += (
            f" [{_number(column, low)}, {_number(column, high)}], {p_text(row['over_control_p'])}"
        )
    return text


def _number(column: str, value: Any) -> str:
    if pd.isna(value):
        return "–"
    sign = "+" if column.startswith(("gain_", OVER_CONTROL_COLUMN)) else ""
    digits = _digits(column)
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0 makes -0.0 a plain zero


def _digits(column: str) -> int:
    return 4 if column.endswith("f1") else 2


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
