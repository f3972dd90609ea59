"""Run teacher, control and experiments one after another, in memory.

These are the calls the pipeline's stages make, without their files: the same parameters give the
same numbers. What is shown or written meanwhile is the caller's business.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from distillation.data.packed import PackedData
from distillation.distill import build_objective, distill
from distillation.evaluation import Metrics, evaluate
from distillation.models import Classifier
from distillation.params import Params
from distillation.results import CONTROL
from distillation.training.arms import (
    ArmResult,
    DeviceData,
    create_student,
    create_teacher,
    is_trained,
    run_arm,
    student_recipe,
    teacher_recipe,
)
from distillation.training.loop import EpochRecord
from distillation.training.supervised import train_supervised

logger = logging.getLogger(__name__)

OnEpoch = Callable[[str, EpochRecord], None]


@dataclasses.dataclass(kw_only=True)
class Comparison:
    """What a comparison has found so far."""

    params: Params
    source: str
    teacher: Metrics
    """The teacher on the test split, after its own training."""
    student: Metrics
    """The student on the test split, before any training."""
    teacher_trained: bool
    arms: dict[str, ArmResult]

    def baseline(self) -> dict[str, dict[str, Any]]:
        """Give the metrics before distillation of teacher and student."""
        return {
            "teacher": {
                "model": self.params.teacher,
                **dataclasses.asdict(self.teacher),
                "trained": self.teacher_trained,
            },
            "student": {"model": self.params.student, **dataclasses.asdict(self.student)},
        }

    def details(self) -> dict[str, Any]:
        """Give everything but the summary, ready for JSON."""
        return {
            "data": self.source,
            "baseline": self.baseline(),
            "arms": {
                name: {
                    **result.flat(),
                    "final": dataclasses.asdict(result.after),
                    "best": dataclasses.asdict(result.best),
                    "history": [dataclasses.asdict(record) for record in result.history],
                }
                for name, result in self.arms.items()
            },
            "params": dataclasses.asdict(self.params),
        }


def train_teacher(
    params: Params, data: PackedData, sets: DeviceData, device: torch.device, on_epoch: OnEpoch
) -> Classifier:
    """Create the teacher and train it as `params` say; returns the best epoch's weights."""
    teacher = create_teacher(params, data).to(device)
    run_arm(
        teacher,
        lambda: train_supervised(
            teacher,
            train=sets.train,
            validation=sets.validation,
            recipe=teacher_recipe(params, view_seed=data.view_seed),
            name="teacher",
            on_epoch=lambda record: on_epoch("teacher", record),
        ),
        test=sets.test,
    )
    return teacher


def start_comparison(
    params: Params,
    data: PackedData,
    sets: DeviceData,
    *,
    teacher: Classifier,
    device: torch.device,
) -> Comparison:
    """Measure teacher and student before distillation."""
    student = create_student(params, data).to(device)
    return Comparison(
        params=params,
        source=data.source,
        teacher=evaluate(teacher, sets.test.images, sets.test.labels),
        student=evaluate(student, sets.test.images, sets.test.labels),
        teacher_trained=is_trained(params),
        arms={},
    )


def run_students(
    comparison: Comparison,
    data: PackedData,
    sets: DeviceData,
    *,
    arms: Sequence[str],
    teacher: Classifier,
    device: torch.device,
    on_epoch: OnEpoch,
    on_arm: Callable[[str, ArmResult], None],
) -> None:
    """Train one student an arm and add its result to the comparison.

    Args:
        comparison: is added to; its parameters are used.
        data: the packed set.
        sets: its splits on the device.
        arms: names among `control`, `exp1`, `exp2`, `exp3`.
        teacher: the trained teacher; it is frozen.
        device: where to train.
        on_epoch: called with arm and record after every epoch.
        on_arm: called with arm and result once the comparison holds it.
    """
    for arm in arms:
        result = _run_student(arm, comparison.params, data, sets, teacher, device, on_epoch)
        comparison.arms[arm] = result
        on_arm(arm, result)


def _run_student(
    arm: str,
    params: Params,
    data: PackedData,
    sets: DeviceData,
    teacher: Classifier,
    device: torch.device,
    on_epoch: OnEpoch,
) -> ArmResult:
    student = create_student(params, data).to(device)
    shared: dict[str, Any] = {
        "train": sets.train,
        "validation": sets.validation,
        "recipe": student_recipe(params, view_seed=data.view_seed),
        "name": arm,
        "on_epoch": lambda record: on_epoch(arm, record),
    }
    if arm == CONTROL:
        return run_arm(student, lambda: train_supervised(student, **shared), test=sets.test)
    objective = build_objective(
        arm, params, student=student, teacher=teacher, image_size=data.image_size
    )
    return run_arm(student, lambda: distill(student, objective, **shared), test=sets.test)
