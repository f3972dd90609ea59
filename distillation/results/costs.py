"""What training cost, and what the control reaches at the same cost.

A distilled student needs a teacher and the teacher's outputs first. Whether that pays, if the
teacher is not there already, shows against the control trained for as much longer. No torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distillation.base.methods import CONTROL
from distillation.base.workspace import TEACHER, Workspace
from distillation.results.intervals import deviation, mean
from distillation.results.metrics_files import read_costs_file
from distillation.runs.seeds import SeedRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """The trainings of a method: what one of them cost, and how good it was."""

    method: str
    epochs: int
    """Of the longest of them."""
    minutes: float
    """Time of cores or GPUs, mean over the trainings."""
    acc: float
    """Test accuracy at the best epochs in percent, mean over the trainings."""
    acc_std: float | None
    n: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingCosts:
    """Teacher, controls of all lengths and distilled students."""

    unit: str
    """What the minutes are the time of: `core` or `GPU`."""
    teacher: Point
    outputs_minutes: float
    """What storing the teacher's outputs cost; 0 where nothing was distilled."""
    controls: Sequence[Point]
    """By what they cost."""
    distilled: Sequence[Point]

    @property
    def before_minutes(self) -> float:
        """Return what has to be there before a student can be distilled."""
        return self.teacher.minutes + self.outputs_minutes

    def total_minutes(self, point: Point) -> float:
        """Return what a distilled student costs together with its teacher."""
        return point.minutes + self.before_minutes

    def control_at(self, minutes: float) -> float | None:
        """Return the control's accuracy for so much time, in percent.

        It is interpolated between the two nearest lengths, linearly over the logarithm of the
        time; None beyond the shortest and the longest.
        """
        known = [point.minutes for point in self.controls]
        if not known or not min(known) <= minutes <= max(known):
            return None
        accuracies = [point.acc for point in self.controls]
        return float(np.interp(np.log(minutes), np.log(known), accuracies))


def read_costs(
    workspace: Workspace,
    methods: Mapping[str, Sequence[SeedRecord]],
    teacher: Sequence[SeedRecord],
    controls: Mapping[str, Sequence[SeedRecord]],
) -> TrainingCosts | None:
    """Read what the trainings of a run cost; every file has to be there.

    Args:
        workspace: where it lies.
        methods: the trainings of each method.
        teacher: the teacher's.
        controls: those of the control at other lengths, by what they are called in file names.

    Returns:
        None without the control, where nothing was trained, and where some was on GPUs and some
        on the CPU.

    Raises:
        MetricsFileError: a file is missing or damaged.
    """
    if CONTROL not in methods:
        return None
    points: dict[str, Point] = {}
    units = set()
    for name, records in {TEACHER: teacher, **methods, **controls}.items():
        unit, minutes = _read(workspace.costs(name))
        points[name] = _point(name, records, minutes)
        units.add(unit)
    distilled = [points[name] for name in methods if name != CONTROL]
    outputs_minutes = 0.0
    if distilled:
        unit, outputs_minutes = _read(workspace.costs("targets"))
        units.add(unit)
    if len(units) != 1 or points[CONTROL].minutes == 0:
        return None
    return TrainingCosts(
        unit=units.pop(),
        teacher=points[TEACHER],
        outputs_minutes=outputs_minutes,
        controls=sorted(
            (points[name] for name in (CONTROL, *controls)), key=lambda point: point.minutes
        ),
        distilled=distilled,
    )


def _read(path: Path) -> tuple[str, float]:
    """Return unit and mean minutes."""
    content = read_costs_file(path)
    return content["unit"], mean(content["seconds"]) / 60.0


def _point(name: str, records: Sequence[SeedRecord], minutes: float) -> Point:
    accuracies = [record["best_acc"] for record in records]
    return Point(
        method=name,
        epochs=max(record["epochs"] for record in records),
        minutes=minutes,
        acc=mean(accuracies),
        acc_std=deviation(accuracies),
        n=len(records),
    )
