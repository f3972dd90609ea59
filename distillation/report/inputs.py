"""What the report is made from: the files that the stages left, read once and checked.

The teacher and every method that was to run need their files; only sizes and speeds may be lacking
where not all stages ran. A file that is missing or damaged is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distillation.base.errors import DistillationError
from distillation.base.methods import CONTROL
from distillation.base.workspace import TEACHER, Workspace, control_name
from distillation.data.prepared import PreparedData, load_prepared
from distillation.results.costs import TrainingCosts, read_costs
from distillation.results.metrics_files import read_object
from distillation.results.outcome import Outcome, read_environment, read_trainings
from distillation.runs.predictions import Predictions
from distillation.runs.seeds import SeedRecord


class ReportError(DistillationError):
    """A file that the report is made from lacks something or is of another run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything the report shows, before anything is drawn."""

    outcome: Outcome
    teacher: Sequence[SeedRecord]
    """The teacher's own training."""
    provenance: Mapping[str, Any]
    """Where the images came from: `source`, `file`, `sha256`."""
    data: PreparedData
    deploy: Mapping[str, Any] | None
    """Sizes and speeds of the exported models; None where they were not measured."""
    parameters: Mapping[str, Any]
    costs: TrainingCosts | None
    """What the trainings cost, and the control of other lengths; None where that says nothing."""
    environments: Mapping[str, Mapping[str, Any]]
    """What each method, and the teacher, ran on."""

    @property
    def methods(self) -> Mapping[str, Sequence[SeedRecord]]:
        """Return the trainings of each method, in the order of the summary table."""
        return self.outcome.methods

    @property
    def predictions(self) -> Mapping[str, Predictions]:
        """Return the test predictions of every method in `methods`, and of the teacher."""
        return self.outcome.predictions

    @property
    def baseline(self) -> Mapping[str, Any]:
        """Return `teacher` and `student` before distillation, `balance` and `data`."""
        return self.outcome.baseline

    @property
    def absent_classes(self) -> list[str]:
        """Return the classes without a test image."""
        return self.baseline["balance"]["test"]["absent_classes"]

    @property
    def has_top5(self) -> bool:
        """Return whether top-5 accuracy was measured: with many classes, and not in old files."""
        trainings = [*self.teacher, *(one for records in self.methods.values() for one in records)]
        return all("best_top5" in one for one in trainings)

    @property
    def teacher_began_elsewhere(self) -> bool:
        """Return whether the teacher started from given weights, whose cost nobody knows here."""
        own, shared = (self.parameters[key] for key in ("teacher_pretrained", "pretrained"))
        return bool(self.baseline["teacher"]["checkpoint"] or (shared if own is None else own))

    @property
    def has_control(self) -> bool:
        """Return whether the control is there to compare with."""
        return CONTROL in self.methods


def read_inputs(
    workspace: Workspace,
    outcome: Outcome,
    parameters: Mapping[str, Any],
    *,
    is_whole: bool,
) -> Inputs:
    """Read what a run left behind beside its outcome.

    Args:
        workspace: where it lies.
        outcome: of the methods that were to run.
        parameters: all hyperparameters by name.
        is_whole: whether all stages ran before, so that sizes and speeds must be there.

    Raises:
        ReportError: predictions belong to other test images than the prepared set's.
        DistillationError: a file is damaged, or a needed one is missing.
    """
    data = load_prepared(workspace.prepared)
    for name, predictions in outcome.predictions.items():
        _check_predictions(workspace.predictions(name), predictions, data)
    path = workspace.metrics / "deploy.json"
    deploy = read_object(path) if is_whole or path.exists() else None
    teacher = read_trainings(workspace, TEACHER)
    lengths = parameters["control_epochs"] if CONTROL in outcome.methods else ()
    controls = {name: read_trainings(workspace, name) for name in map(control_name, lengths)}
    return Inputs(
        outcome=outcome,
        teacher=teacher,
        costs=read_costs(workspace, outcome.methods, teacher, controls),
        provenance={"source": data.source, **data.provenance},
        data=data,
        deploy=deploy,
        parameters=parameters,
        environments={
            name: read_environment(workspace, name) for name in (TEACHER, *outcome.methods)
        },
    )


def _check_predictions(path: Path, predictions: Predictions, data: PreparedData) -> None:
    same_labels = np.array_equal(predictions.labels, data.test.labels)
    if not same_labels or predictions.class_names != data.class_names:
        raise ReportError(
            f"{path}: its labels or classes are not those of the prepared test split; run the "
            "method again"
        )
