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
from distillation.measures import measure, share_of_gap_closed
from distillation.methods import CONTROL, sort_arms
from distillation.predictions import Predictions
from distillation.seeds import SeedRecord, combine_seeds
from distillation.statistics import Difference, mean, paired_difference

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
SPREAD_COLUMNS = (
    "over_control_low",
    "over_control_high",
    "after_acc_std",
    "after_f1_std",
    "best_acc_std",
    "best_f1_std",
    "n",
)
"""The 95 % confidence interval of `acc_over_control`, deviations over seeds, number of seeds."""


RESULTS_ENDINGS = (".json", ".csv")

_NOISE_POINTS = 0.5
_CLEAR_LEAD_POINTS = 2.0


class ResultsError(DistillationError):
    """Results cannot be read or written where the user asked."""


def summary_table(arms: Mapping[str, Sequence[SeedRecord]]) -> pd.DataFrame:
    """Build the summary table from the arms' trainings.

    Args:
        arms: the trainings of each arm, one a seed, by the arm's name; accuracy in percent,
            macro-F1 a fraction.

    Returns:
        `SUMMARY_COLUMNS`, `OVER_CONTROL_COLUMN` and `SPREAD_COLUMNS`; the control is the first row
        where there is one, and without it what compares with it is empty.
    """
    rows = []
    for name in sort_arms(arms):
        combined = combine_seeds(arms[name])
        over = difference(arms, name, CONTROL)
        rows.append(
            {
                "exp": name,
                **combined,
                OVER_CONTROL_COLUMN: None if over is None else _round(over.mean),
                "over_control_low": None if over is None or name == CONTROL else _round(over.low),
                "over_control_high": None if over is None or name == CONTROL else _round(over.high),
            }
        )
    columns = [*SUMMARY_COLUMNS, OVER_CONTROL_COLUMN, *SPREAD_COLUMNS]
    table = pd.DataFrame(rows, columns=columns)
    for column in columns[1:-1]:
        table[column] = table[column].astype(float)
    return table


def difference(
    arms: Mapping[str, Sequence[SeedRecord]], first: str, second: str, key: str = "after_acc"
) -> Difference | None:
    """Give how far one arm is ahead of another, paired by seed; None where there are no pairs."""
    if first not in arms or second not in arms:
        return None
    by_seed = [{record["seed"]: record[key] for record in arms[name]} for name in (first, second)]
    return paired_difference(*by_seed)


def validation_accuracies(arms: Mapping[str, Sequence[SeedRecord]]) -> dict[str, float]:
    """Give the mean validation accuracy, in percent, of every arm that was trained, in order."""
    return {
        name: mean([record["validation_acc"] for record in arms[name]])
        for name in sort_arms(arms)
        if all(record["validation_acc"] is not None for record in arms[name])
    }


def best_arm(arms: Mapping[str, Sequence[SeedRecord]]) -> str | None:
    """Choose the arm with the best mean validation accuracy at its best epochs.

    Returns:
        Of equals the first in the table, so the control before any method; None when no arm was
        trained.
    """
    accuracies = validation_accuracies(arms)
    return max(accuracies, key=lambda name: accuracies[name]) if accuracies else None


def measure_arms(predictions: Mapping[str, Predictions]) -> dict[str, dict[str, Any]]:
    """Measure every arm's predictions at its best epochs, ready for JSON.

    Args:
        predictions: by arm, the teacher's under `teacher`.

    Returns:
        What `measures.measure` gives for each, and `gap_closed`: which share of the way from the
        control's accuracy to the teacher's an arm has gone; None where there is no way to go.
    """
    teacher = predictions["teacher"]
    found = {
        name: measure(of_arm, None if name == "teacher" else teacher)
        for name, of_arm in predictions.items()
    }
    for name in found:
        if name != "teacher" and CONTROL in found:
            found[name]["gap_closed"] = share_of_gap_closed(
                arm=found[name]["accuracy"]["mean"],
                control=found[CONTROL]["accuracy"]["mean"],
                teacher=found["teacher"]["accuracy"]["mean"],
            )
    return found


def remarks(
    arms: Mapping[str, Sequence[SeedRecord]], teacher: Mapping[str, Any], *, source: str
) -> list[str]:
    """Say what a reader must know of the table, one sentence each.

    Args:
        arms: the trainings of each arm.
        teacher: the teacher's `acc` in percent, whether it is `trained`, and its `checkpoint`.
        source: what the images are.
    """
    said = []
    if not teacher["trained"]:
        said.append(
            "The teacher was never trained: what is distilled from it is noise, and the table "
            "says nothing about the methods."
        )
    if teacher["checkpoint"] is not None:
        said.append(
            f"The teacher started from the checkpoint {teacher['checkpoint']}: what that was "
            "trained on, and with which labels, is not known here."
        )
    if CONTROL in arms:
        lead = teacher["acc"] - combine_seeds(arms[CONTROL])["after_acc"]
        if teacher["trained"] and lead < _CLEAR_LEAD_POINTS:
            place = "barely leads" if lead > 0 else "does not even lead"
            said.append(
                f"The teacher {place} the control ({lead:+.2f} points): it has little to teach."
            )
        said += _verdicts(arms)
    else:
        said.append("No control was run: without it a gain only says that training helps.")
    if source.startswith("digits"):
        said.append(
            "Digits are few and easy: they show that the machinery works, not that "
            "distillation pays."
        )
    if any(len(records) == 1 for records in arms.values()):
        said.append(
            f"One seed: a difference under {_NOISE_POINTS} points proves nothing; run more with "
            "-S 'seeds=[0,1,2]'."
        )
    said.append(
        "gain_* compares with the untrained student, acc_over_control with the student trained "
        "by labels alone."
    )
    return said


def _verdicts(arms: Mapping[str, Sequence[SeedRecord]]) -> list[str]:
    """Say of each arm whether it beats the control, and which of the best is not told apart."""
    distilled = [name for name in sort_arms(arms) if name != CONTROL]
    over = {name: found for name in distilled if (found := difference(arms, name, CONTROL))}
    said = [f"{name} {_verdict(found)}: {found.to_text()} points." for name, found in over.items()]
    if len(over) < 2:
        return said
    best = max(over, key=lambda name: over[name].mean)
    rivals = {name: difference(arms, best, name) for name in over if name != best}
    close = [
        f"{name} ({lead.to_text()})"
        for name, lead in rivals.items()
        if lead is not None and _is_close(lead)
    ]
    if close:
        said.append(f"The data do not separate {best} from {', '.join(close)}.")
    return said


def _is_close(lead: Difference) -> bool:
    """Tell whether a lead may be luck."""
    return lead.mean < _NOISE_POINTS if lead.n == 1 else not lead.is_separated


def _verdict(over: Difference) -> str:
    if over.n == 1:
        if abs(over.mean) < _NOISE_POINTS:
            return "and the control differ by less than one seed can show"
        return "is ahead of the control" if over.mean > 0 else "is behind the control"
    if not over.is_separated:
        return "is not told apart from the control"
    return "beats the control" if over.mean > 0 else "is worse than the control"


def to_markdown(table: pd.DataFrame) -> str:
    """Give the table as GitHub Markdown: mean ± deviation, and the interval in brackets."""
    cells = _readable(table)
    header = "| " + " | ".join(cells.columns) + " |"
    rule = "|" + "|".join([" --- "] + [" ---: "] * (len(cells.columns) - 1)) + "|"
    lines = ["| " + " | ".join(row) + " |" for row in cells.to_numpy().tolist()]
    return "\n".join([header, rule, *lines]) + "\n"


def to_text(table: pd.DataFrame) -> str:
    """Give the table for a terminal."""
    return _readable(table).to_string(index=False) + "\n"


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


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Give the table as text, deviations and interval in the cells of what they belong to."""
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
        text += f" [{_number(column, low)}, {_number(column, high)}]"
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
