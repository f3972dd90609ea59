"""What the methods of one run left behind, read from their files and put together. No torch."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from distillation.base.errors import DistillationError
from distillation.base.files import write_json, write_text
from distillation.base.methods import CONTROL
from distillation.base.params import Params, to_dict
from distillation.base.workspace import TEACHER, Workspace
from distillation.results.doubts import majority_note
from distillation.results.markdown import escape_sentence
from distillation.results.measures import measure_methods
from distillation.results.metrics_files import read_baseline_file, read_trainings_file
from distillation.results.remarks import remarks
from distillation.results.table import (
    COMPARED_COLUMNS,
    summary_table,
    to_csv,
    to_markdown,
    to_records,
    to_text,
)
from distillation.runs.predictions import Predictions, load_predictions
from distillation.runs.seeds import SeedRecord, combine_seeds

RESULTS_ENDINGS = (".json", ".csv")
_GAIN_MEANING = "gain_* compares with the untrained student, at the last epoch."
_LEAD_MEANING = (
    "gain_* compares with the untrained student, acc_over_control with the student trained by "
    "labels alone, both at the last epoch."
)


class ResultsError(DistillationError):
    """Results cannot be written where the user asked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The trainings of some methods, with what they are compared with."""

    methods: Mapping[str, Sequence[SeedRecord]]
    """The trainings of each method, one per seed, their `history` included."""
    baseline: Mapping[str, Any]
    """`teacher` and `student` before distillation, `balance`, how the images are spread over the
    classes, and `data`, what they are."""
    predictions: Mapping[str, Predictions]
    """Of each method, and of the teacher."""

    @property
    def source(self) -> str:
        """What the images are."""
        return self.baseline["data"]

    @property
    def table(self) -> pd.DataFrame:
        """The summary table."""
        return summary_table(self.methods)

    @property
    def warnings(self) -> list[str]:
        """What a reader must know of the results."""
        return remarks(
            self.methods,
            self.baseline["teacher"],
            source=self.source,
            balance=self.baseline["balance"],
        )

    @property
    def remarks(self) -> list[str]:
        """The warnings, at last what the table's columns mean."""
        return [*self.warnings, _LEAD_MEANING if CONTROL in self.methods else _GAIN_MEANING]

    @property
    def teacher_line(self) -> str:
        """The teacher and the data, in a line."""
        teacher, note = self.baseline["teacher"], majority_note(self.baseline["balance"]["test"])
        beside = "" if note is None else f" ({note})"
        return (
            f"Teacher {teacher['model']}: {teacher['acc']:.2f} % accuracy{beside}, "
            f"macro-F1 {teacher['f1']:.4f}. Data: {self.source}."
        )

    def to_text(self) -> str:
        """Return table and remarks for a terminal."""
        return "\n".join([to_text(self.table), self.teacher_line, *self.remarks])

    def to_markdown(self) -> str:
        """Return table and remarks as Markdown."""
        said = [f"- {escape_sentence(line)}" for line in self.remarks]
        teacher = escape_sentence(self.teacher_line)
        return "\n".join([to_markdown(self.table), teacher, "", *said, ""])

    @cached_property
    def measures(self) -> dict[str, dict[str, Any]]:
        """Recall, confusion, calibration, agreement with the teacher, by method."""
        return measure_methods(self.predictions)

    def summary(self) -> dict[str, Any]:
        """Return table, baseline and remarks, ready for JSON."""
        return {
            "summary": to_records(self.table),
            "teacher": self.baseline["teacher"],
            "student": self.baseline["student"],
            "data": self.source,
            "remarks": self.remarks,
        }

    def compared(self) -> dict[str, dict[str, Any]]:
        """Return what people compare, by method: few flat values, for `dvc metrics`."""
        rows = to_records(self.table)
        values = {row["exp"]: {key: row[key] for key in COMPARED_COLUMNS} for row in rows}
        teacher = {f"after_{name}": self.baseline["teacher"][name] for name in ("acc", "f1")}
        return {**values, TEACHER: teacher}

    def details(self, params: Params) -> dict[str, Any]:
        """Return everything there is, ready for JSON."""
        return {
            "summary": to_records(self.table),
            "data": self.source,
            "remarks": self.remarks,
            "baseline": {role: self.baseline[role] for role in ("teacher", "student")},
            "methods": {
                name: {**combine_seeds(trainings), "seeds": list(trainings)}
                for name, trainings in self.methods.items()
            },
            "measures": self.measures,
            "params": to_dict(params),
        }


def read_outcome(workspace: Workspace, methods: Sequence[str]) -> Outcome:
    """Read what some methods left in a workspace.

    Raises:
        MetricsFileError: a file is missing or damaged.
        PredictionsError: predictions are missing or damaged.
    """
    return Outcome(
        methods={name: read_trainings(workspace, name) for name in methods},
        baseline=read_baseline(workspace),
        predictions={
            name: load_predictions(workspace.predictions(name)) for name in (TEACHER, *methods)
        },
    )


def read_trainings(workspace: Workspace, method: str) -> list[dict[str, Any]]:
    """Read the trainings of a method, or of the teacher, one record per seed.

    Raises:
        MetricsFileError: the file is missing or damaged.
    """
    return read_trainings_file(workspace.seeds(method))["seeds"]


def read_environment(workspace: Workspace, method: str) -> dict[str, Any]:
    """Read what a method, or the teacher, ran on; empty where a former version did not record it.

    Raises:
        MetricsFileError: the file is missing or damaged.
    """
    return read_trainings_file(workspace.seeds(method)).get("environment", {})


def read_baseline(workspace: Workspace) -> dict[str, Any]:
    """Read what `eval_baseline` measured.

    Raises:
        MetricsFileError: the file is missing, damaged or of a former version.
    """
    return read_baseline_file(workspace.metrics / "baseline.json")


def check_results_path(path: Path) -> None:
    """Raise `ResultsError` unless results can be written to `path`; called before any work."""
    if path.suffix not in RESULTS_ENDINGS:
        raise ResultsError(
            f"results path: got {str(path)!r}; allowed endings: {', '.join(RESULTS_ENDINGS)}"
        )
    check_place(path, name="results path")


def check_place(path: Path, *, name: str) -> None:
    """Raise `ResultsError` unless a file can be written to `path`; called before any work.

    Args:
        path: where.
        name: of the option that says so.
    """
    try:
        is_free = path.is_file() or not path.exists()
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError:  # no such folder, not to be written to, or longer than a path can be
        is_free = False
    if not is_free:
        raise ResultsError(
            f"{name}: got {str(path)!r}; allowed: a file in a folder that exists and can be "
            "written to"
        )


def write_results(path: Path, outcome: Outcome, params: Params) -> None:
    """Write everything to a .json file, or the table alone to a .csv file; the ending decides."""
    check_results_path(path)
    if path.suffix == ".csv":
        write_text(path, to_csv(outcome.table, source=outcome.source))
    else:
        write_json(path, outcome.details(params))
