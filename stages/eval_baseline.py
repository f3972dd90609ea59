"""Measure teacher and student before any distillation."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from distillation.base.checksums import seal
from distillation.base.files import write_json
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.data.balance import measure_balance
from distillation.training.evaluation import evaluate
from distillation.training.setup import (
    create_student,
    describe_teacher,
    load_setup,
    load_teacher,
)
from stages.entry import run_stage

logger = logging.getLogger(__name__)


def main(params: Params, workspace: Workspace) -> list[Path]:
    """Write `metrics/baseline.json`: loss, accuracy and macro-F1 on the test split.

    Beside them stands how the images are spread over the classes. The student is the one the first
    of the seeds starts with.
    """
    setup = load_setup(params, workspace)
    student = create_student(setup, seed=params.seeds[0])
    teacher = load_teacher(setup, workspace.teacher_weights)
    models = {"teacher": teacher, "student": student}
    described: dict[str, dict[str, Any]] = {
        "teacher": {"model": teacher.name, **describe_teacher(params)},
        "student": {"model": student.name},
    }
    test = setup.sets.test
    for role, model in models.items():
        measured = evaluate(model, test.images, test.labels, runtime=setup.runtime)
        described[role] |= dataclasses.asdict(measured)
        name = described[role]["model"]
        logger.info("%s %s before distillation, test set: %s", role, name, measured.to_text())
    balance = {
        name: measure_balance(getattr(setup.data, name).labels, setup.data.class_names).summary()
        for name in ("validation", "test")
    }
    metrics = workspace.metrics / "baseline.json"
    write_json(metrics, seal({**described, "balance": balance, "data": setup.data.source}))
    return [metrics]


if __name__ == "__main__":
    run_stage(main)
