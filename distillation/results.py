"""The summary table: one row an arm, the control first, as JSON, CSV and Markdown.

It works on the flat metrics that every arm leaves behind and imports no torch. It also says in
words what a reader must know before believing a gain.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from distillation.errors import DistillationError
from distillation.files import write_json, write_text

CONTROL = "control"
EXPERIMENTS = ("exp1", "exp2", "exp3")
ARMS = (CONTROL, *EXPERIMENTS)

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

RESULTS_ENDINGS = (".json", ".csv")

_NOISE_POINTS = 0.5
_CLEAR_LEAD_POINTS = 2.0


class ResultsError(DistillationError):
    """Results cannot be read or written where the user asked."""


def summary_table(arms: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Build the summary table from the arms' flat metrics.

    Args:
        arms: metrics by arm name; accuracy in percent, macro-F1 a fraction.

    Returns:
        `SUMMARY_COLUMNS` and `OVER_CONTROL_COLUMN`; the control is the first row where there is
        one, and without it the last column is empty.
    """
    names = [name for name in ARMS if name in arms] + [name for name in arms if name not in ARMS]
    rows = [
        {"exp": name, **{column: arms[name][column] for column in SUMMARY_COLUMNS[1:]}}
        for name in names
    ]
    table = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    control_acc = arms[CONTROL]["after_acc"] if CONTROL in arms else float("nan")
    table[OVER_CONTROL_COLUMN] = (table["after_acc"] - control_acc).round(4)
    return table


def remarks(
    arms: Mapping[str, Mapping[str, Any]], teacher: Mapping[str, Any], *, source: str
) -> list[str]:
    """Say what a reader must know of the table, one sentence each.

    Args:
        arms: metrics by arm name.
        teacher: the teacher's `acc` in percent and whether it is `trained`.
        source: what the images are.
    """
    said = []
    if not teacher["trained"]:
        said.append(
            "The teacher was never trained: what is distilled from it is noise, and the table "
            "says nothing about the methods."
        )
    if CONTROL in arms:
        lead = teacher["acc"] - arms[CONTROL]["after_acc"]
        if teacher["trained"] and lead < _CLEAR_LEAD_POINTS:
            place = "barely leads" if lead > 0 else "does not even lead"
            said.append(
                f"The teacher {place} the control ({lead:+.2f} points): it has little to teach."
            )
        gains = {n: a["after_acc"] - arms[CONTROL]["after_acc"] for n, a in arms.items()}
        del gains[CONTROL]
        if gains:
            best = max(gains, key=lambda name: gains[name])
            if gains[best] >= _NOISE_POINTS:
                verdict = "beats the control"
            elif gains[best] > 0:
                verdict = "is ahead of the control by less than one seed can show"
            else:
                verdict = "does not beat the control"
            said.append(
                f"The best experiment by final accuracy, {best}, {verdict} "
                f"({gains[best]:+.2f} points)."
            )
    else:
        said.append("No control was run: without it a gain only says that training helps.")
    if source.startswith("digits"):
        said.append(
            "Digits are few and easy: they show that the machinery works, not that "
            "distillation pays."
        )
    said.append(
        f"One seed: a difference under {_NOISE_POINTS} points proves nothing; gain_* compares "
        "with the untrained student, acc_over_control with the student trained by labels alone."
    )
    return said


def to_markdown(table: pd.DataFrame) -> str:
    """Give the table as GitHub Markdown: accuracy with two decimals, F1 with four."""
    header = "| " + " | ".join(table.columns) + " |"
    rule = "|" + "|".join([" --- "] + [" ---: "] * (len(table.columns) - 1)) + "|"
    lines = [
        "| " + " | ".join(_cell(column, row[column]) for column in table.columns) + " |"
        for row in table.to_dict("records")
    ]
    return "\n".join([header, rule, *lines]) + "\n"


def to_text(table: pd.DataFrame) -> str:
    """Give the table for a terminal."""
    cells = {
        column: [_cell(str(column), value) for value in table[column]] for column in table.columns
    }
    return pd.DataFrame(cells).to_string(index=False) + "\n"


def check_results_path(path: Path) -> None:
    """Raise `ResultsError` unless results can be written to `path`; called before any work."""
    if path.suffix not in RESULTS_ENDINGS:
        raise ResultsError(
            f"results path: got {str(path)!r}; allowed endings: {', '.join(RESULTS_ENDINGS)}"
        )
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ResultsError(
            f"results path: got {str(path)!r}; allowed: a file in a folder that exists"
        )


def write_results(path: Path, table: pd.DataFrame, details: Mapping[str, Any]) -> None:
    """Write everything to a .json file, or the table alone to a .csv file.

    Args:
        path: the file; its ending decides.
        table: the summary table.
        details: what else a .json file holds; `data` says what the images are.
    """
    check_results_path(path)
    if path.suffix == ".csv":
        write_text(path, to_csv(table, source=details["data"]))
    else:
        write_json(path, {"summary": to_records(table), **details})


def to_csv(table: pd.DataFrame, *, source: str) -> str:
    """Give the table as CSV, with a last column `data` that says what the images are."""
    buffer = io.StringIO()
    table.assign(data=source).to_csv(buffer, index=False)
    return buffer.getvalue()


def to_records(table: pd.DataFrame) -> Sequence[dict[str, Any]]:
    """Give the table as JSON-ready rows, null where a value is missing."""
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]


def _cell(column: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "–"
    digits = 4 if column.endswith("f1") else 2
    sign = "+" if column.startswith(("gain_", OVER_CONTROL_COLUMN)) else ""
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0 makes -0.0 a plain zero
