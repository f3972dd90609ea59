"""Run teacher, control and experiments one after another, in memory.

These are the calls the pipeline's stages make, without their files: the same parameters give the
same numbers. What is shown or written meanwhile is the caller's business.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distillation.data.packed import PackedData
from distillation.distill import build_objective, describe_teacher_outputs, distill
from distillation.evaluation import Metrics, evaluate
from distillation.models import Classifier
from distillation.params import Params
from distillation.results import CONTROL
from distillation.runtime import Runtime
from distillation.targets import TeacherTargets, compute_targets, fingerprint_targets, load_targets
from distillation.training.arms import (
    ArmResult,
    DeviceData,
    create_student,
    create_teacher,
    is_trained,
    run_arm,
    student_recipe,
    teacher_recipe,
    to_device,
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What all arms of a comparison share."""

    params: Params
    data: PackedData
    sets: DeviceData
    runtime: Runtime


def make_setting(params: Params, data: PackedData, runtime: Runtime) -> Setting:
    """Put the data on the runtime's device."""
    return Setting(params=params, data=data, sets=to_device(data, runtime.device), runtime=runtime)


def train_teacher(setting: Setting, *, on_epoch: OnEpoch) -> Classifier:
    """Create the teacher and train it as the parameters say; returns the best epoch's weights."""
    teacher = create_teacher(setting.params, setting.data).to(setting.runtime.device)
    run_arm(
        teacher,
        lambda: train_supervised(
            teacher,
            train=setting.sets.train,
            validation=setting.sets.validation,
            recipe=teacher_recipe(setting.params, view_seed=setting.data.view_seed),
            runtime=setting.runtime,
            name="teacher",
            on_epoch=lambda record: on_epoch("teacher", record),
        ),
        test=setting.sets.test,
        runtime=setting.runtime,
    )
    return teacher


def start_comparison(setting: Setting, *, teacher: Classifier) -> Comparison:
    """Measure teacher and student before distillation."""
    student = create_student(setting.params, setting.data).to(setting.runtime.device)

    def measure(model: Classifier) -> Metrics:
        test = setting.sets.test
        return evaluate(model, test.images, test.labels, runtime=setting.runtime)

    return Comparison(
        params=setting.params,
        source=setting.data.source,
        teacher=measure(teacher),
        student=measure(student),
        teacher_trained=is_trained(setting.params),
        arms={},
    )


def run_students(
    comparison: Comparison,
    setting: Setting,
    *,
    arms: Sequence[str],
    teacher: Classifier,
    on_epoch: OnEpoch,
    on_arm: Callable[[str, ArmResult], None],
) -> None:
    """Train one student an arm and add its result to the comparison.

    Args:
        comparison: is added to.
        setting: parameters, data, runtime.
        arms: names among `control`, `exp1`, `exp2`, `exp3`.
        teacher: the trained teacher; it is frozen.
        on_epoch: called with arm and record after every epoch.
        on_arm: called with arm and result once the comparison holds it.
    """
    is_distilled = setting.params.epochs > 0 and any(arm != CONTROL for arm in arms)
    with _temporary_targets(setting, teacher if is_distilled else None) as targets:
        for arm in arms:
            result = _run_student(arm, setting, teacher, targets, on_epoch)
            comparison.arms[arm] = result
            on_arm(arm, result)


@contextmanager
def _temporary_targets(
    setting: Setting, teacher: Classifier | None
) -> Iterator[TeacherTargets | None]:
    """Store a teacher's outputs in a folder that goes away; without a teacher there are none."""
    if teacher is None:
        yield None
        return
    recipe = student_recipe(setting.params, view_seed=setting.data.view_seed)
    shared: dict[str, Any] = {
        "data": setting.data,
        "views": recipe.views,
        "num_views": recipe.num_views,
        "runtime": setting.runtime,
    }
    with tempfile.TemporaryDirectory(prefix="distillation-") as temporary:
        directory = Path(temporary) / "targets"
        train = setting.sets.train
        cache_gb = setting.params.teacher_cache_gb
        compute_targets(teacher, train, directory, cache_gb=cache_gb, **shared)
        yield load_targets(
            directory,
            fingerprint=fingerprint_targets(teacher, **shared),
            train=train,
            device=setting.runtime.device,
        )


def _run_student(
    arm: str,
    setting: Setting,
    teacher: Classifier,
    targets: TeacherTargets | None,
    on_epoch: OnEpoch,
) -> ArmResult:
    params, runtime, test = setting.params, setting.runtime, setting.sets.test
    student = create_student(params, setting.data).to(runtime.device)
    shared: dict[str, Any] = {
        "train": setting.sets.train,
        "validation": setting.sets.validation,
        "recipe": student_recipe(params, view_seed=setting.data.view_seed),
        "runtime": runtime,
        "name": arm,
        "on_epoch": lambda record: on_epoch(arm, record),
    }
    if arm == CONTROL:
        return run_arm(
            student, lambda: train_supervised(student, **shared), test=test, runtime=runtime
        )
    objective = build_objective(
        arm,
        params,
        student=student,
        teacher=teacher,
        image_size=setting.data.image_size,
        targets=targets,
    )
    return run_arm(
        student,
        lambda: distill(student, objective, targets=targets, **shared),
        test=test,
        runtime=runtime,
        teacher_outputs=describe_teacher_outputs(objective, targets),
    )
