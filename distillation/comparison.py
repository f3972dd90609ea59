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

import numpy as np
from torch import Tensor

from distillation.data.packed import PackedData
from distillation.distill import build_objective, describe_teacher_outputs, distill
from distillation.evaluation import Metrics, measure_logits, predict_logits
from distillation.methods import CONTROL
from distillation.models import Classifier
from distillation.params import Params
from distillation.predictions import Predictions
from distillation.results import measure_arms
from distillation.runtime import Runtime
from distillation.seeds import combine_seeds
from distillation.targets import TeacherTargets, compute_targets, fingerprint_targets, load_targets
from distillation.training.arms import (
    DeviceData,
    SeedResult,
    control_set,
    create_student,
    create_teacher,
    describe_teacher,
    distillation_set,
    run_arm,
    student_recipe,
    teacher_recipe,
    to_device,
    view_settings,
)
from distillation.training.loop import EpochRecord
from distillation.training.supervised import train_supervised

logger = logging.getLogger(__name__)

OnEpoch = Callable[[str, EpochRecord], None]


@dataclasses.dataclass(kw_only=True)
class Comparison:
    """What a comparison has found so far."""

    params: Params
    data: PackedData
    teacher: Metrics
    """The teacher on the test split, after its own training."""
    student: Metrics
    """The student on the test split, before any training."""
    teacher_predictions: Predictions
    arms: dict[str, list[SeedResult]]
    """One result a seed."""

    def baseline(self) -> dict[str, dict[str, Any]]:
        """Give the metrics before distillation of teacher and student."""
        return {
            "teacher": {**describe_teacher(self.params), **dataclasses.asdict(self.teacher)},
            "student": {"model": self.params.student, **dataclasses.asdict(self.student)},
        }

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Give each arm's trainings as flat values, one mapping a seed."""
        return {
            arm: [{"seed": result.seed, **result.flat()} for result in results]
            for arm, results in self.arms.items()
        }

    def measures(self) -> dict[str, Any]:
        """Measure the arms' predictions: recall, confusion, calibration, agreement."""
        return measure_arms(
            {
                "teacher": self.teacher_predictions,
                **{arm: _predictions(results, self.data) for arm, results in self.arms.items()},
            }
        )

    def details(self) -> dict[str, Any]:
        """Give everything but the summary, ready for JSON."""
        records = self.records()
        return {
            "data": self.data.source,
            "baseline": self.baseline(),
            "arms": {
                arm: {
                    **combine_seeds(records[arm]),
                    "seeds": [
                        {
                            **record,
                            "final": dataclasses.asdict(result.after),
                            "best": dataclasses.asdict(result.best),
                            "history": [dataclasses.asdict(epoch) for epoch in result.history],
                        }
                        for record, result in zip(records[arm], results, strict=True)
                    ],
                }
                for arm, results in self.arms.items()
            },
            "measures": self.measures(),
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
        seed=setting.params.seed,
    )
    return teacher


def start_comparison(setting: Setting, *, teacher: Classifier) -> Comparison:
    """Measure teacher and student before distillation."""
    params, data, test = setting.params, setting.data, setting.sets.test
    student = create_student(params, data, seed=params.seeds[0]).to(setting.runtime.device)
    teacher_logits, student_logits = (
        predict_logits(model, test.images, runtime=setting.runtime) for model in (teacher, student)
    )
    return Comparison(
        params=params,
        data=data,
        teacher=measure_logits(teacher_logits, test.labels),
        student=measure_logits(student_logits, test.labels),
        teacher_predictions=_make_predictions([teacher_logits], [params.seed], data),
        arms={},
    )


def run_students(
    comparison: Comparison,
    setting: Setting,
    *,
    arms: Sequence[str],
    teacher: Classifier,
    on_epoch: OnEpoch,
    on_arm: Callable[[str], None],
) -> None:
    """Train every arm once a seed and add the results to the comparison.

    Args:
        comparison: is added to.
        setting: parameters, data, runtime.
        arms: `control`, and names `distillation.methods` knows.
        teacher: the trained teacher; it is frozen.
        on_epoch: called with the training's name and record after every epoch.
        on_arm: called with the arm once the comparison holds its results.
    """
    is_distilled = setting.params.epochs > 0 and any(arm != CONTROL for arm in arms)
    with _temporary_targets(setting, teacher if is_distilled else None) as targets:
        for arm in arms:
            comparison.arms[arm] = [
                _run_student(arm, seed, setting, teacher, targets, on_epoch)
                for seed in setting.params.seeds
            ]
            on_arm(arm)


@contextmanager
def _temporary_targets(
    setting: Setting, teacher: Classifier | None
) -> Iterator[TeacherTargets | None]:
    """Store a teacher's outputs in a folder that goes away; without a teacher there are none."""
    if teacher is None:
        yield None
        return
    shared: dict[str, Any] = {
        "data": setting.data,
        "views": view_settings(setting.params, view_seed=setting.data.view_seed),
        "num_views": setting.params.num_views,
        "runtime": setting.runtime,
    }
    with tempfile.TemporaryDirectory(prefix="distillation-") as temporary:
        directory = Path(temporary) / "targets"
        train = distillation_set(setting.sets.train, setting.params)
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
    seed: int,
    setting: Setting,
    teacher: Classifier,
    targets: TeacherTargets | None,
    on_epoch: OnEpoch,
) -> SeedResult:
    params, runtime = setting.params, setting.runtime
    student = create_student(params, setting.data, seed=seed).to(runtime.device)
    name = arm if len(params.seeds) == 1 else f"{arm} seed {seed}"
    shared: dict[str, Any] = {
        "validation": setting.sets.validation,
        "recipe": student_recipe(params, view_seed=setting.data.view_seed, seed=seed),
        "runtime": runtime,
        "name": name,
        "on_epoch": lambda record: on_epoch(name, record),
    }
    measured: dict[str, Any] = {"test": setting.sets.test, "runtime": runtime, "seed": seed}
    if arm == CONTROL:
        train = control_set(setting.sets.train, params)
        return run_arm(
            student, lambda: train_supervised(student, train=train, **shared), **measured
        )
    train = distillation_set(setting.sets.train, params)
    objective = build_objective(
        arm,
        params,
        student=student,
        teacher=teacher,
        train=train,
        image_size=setting.data.image_size,
        seed=seed,
        targets=targets,
    )
    return run_arm(
        student,
        lambda: distill(student, objective, train=train, targets=targets, **shared),
        teacher_outputs=describe_teacher_outputs(objective, targets),
        **measured,
    )


def _predictions(results: Sequence[SeedResult], data: PackedData) -> Predictions:
    return _make_predictions(
        [result.logits for result in results], [result.seed for result in results], data
    )


def _make_predictions(
    logits: Sequence[Tensor], seeds: Sequence[int], data: PackedData
) -> Predictions:
    return Predictions(
        logits=np.stack([values.cpu().numpy() for values in logits]),
        seeds=np.array(seeds),
        labels=data.test.labels,
        class_names=data.class_names,
    )
