"""Measure teacher and student before any distillation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from distillation.data.packed import load_packed
from distillation.evaluation import evaluate
from distillation.files import write_json
from distillation.params import Params
from distillation.runtime import make_runtime
from distillation.training.arms import create_student, describe_teacher, load_teacher, to_device
from stages.workspace import METRICS, PREPARED, TEACHER_WEIGHTS, device_name, run_stage


def main(params: Params) -> list[Path]:
    """Write `metrics/baseline.json`: loss, accuracy and macro-F1 on the test split.

    The student is the one the first of the seeds starts with.
    """
    runtime = make_runtime(
        precision=params.precision, compiles=params.compile, device_name=device_name()
    )
    data = load_packed(PREPARED)
    test = to_device(data, runtime.device).test
    models = {
        "teacher": load_teacher(params, data, TEACHER_WEIGHTS),
        "student": create_student(params, data, seed=params.seeds[0]),
    }
    measured = {
        role: dataclasses.asdict(
            evaluate(model.to(runtime.device), test.images, test.labels, runtime=runtime)
        )
        for role, model in models.items()
    }
    write_json(
        METRICS / "baseline.json",
        {
            "teacher": {**describe_teacher(params), **measured["teacher"]},
            "student": {"model": params.student, **measured["student"]},
            "data": data.source,
        },
    )
    return [METRICS / "baseline.json"]


if __name__ == "__main__":
    run_stage(main)
