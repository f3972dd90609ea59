"""Distil the teacher into the student by one method: `python -m stages.distill exp1`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from distillation.data.packed import load_packed
from distillation.distill import build_objective, describe_teacher_outputs, distill
from distillation.methods import EXPERIMENTS, find_methods
from distillation.params import Params
from distillation.runtime import make_runtime
from distillation.targets import fingerprint_targets, load_targets
from distillation.training.arms import (
    create_student,
    distillation_set,
    load_teacher,
    student_recipe,
    to_device,
    view_settings,
)
from stages.arm import Training, run_arm_stage
from stages.workspace import PREPARED, TARGETS, TEACHER_WEIGHTS, device_name, run_stage


def main(params: Params, *, method: str) -> list[Path]:
    """Write the method's model, metrics and predictions."""
    runtime = make_runtime(
        precision=params.precision, compiles=params.compile, device_name=device_name()
    )
    data = load_packed(PREPARED)
    sets = to_device(data, runtime.device)
    train = distillation_set(sets.train, params)
    teacher = load_teacher(params, data, TEACHER_WEIGHTS).to(runtime.device)
    fingerprint = fingerprint_targets(
        teacher,
        data=data,
        views=view_settings(params, view_seed=data.view_seed),
        num_views=params.num_views,
        runtime=runtime,
    )
    targets = load_targets(TARGETS, fingerprint=fingerprint, train=train, device=runtime.device)

    def prepare(seed: int) -> Training:
        recipe = student_recipe(params, view_seed=data.view_seed, seed=seed)
        student = create_student(params, data, seed=seed).to(runtime.device)
        objective = build_objective(
            method,
            params,
            student=student,
            teacher=teacher,
            train=train,
            image_size=data.image_size,
            seed=seed,
            targets=targets,
        )
        return Training(
            model=student,
            recipe=recipe,
            train=lambda name, on_epoch, states: distill(
                student,
                objective,
                train=train,
                validation=sets.validation,
                recipe=recipe,
                runtime=runtime,
                name=name,
                targets=targets,
                states=states,
                on_epoch=on_epoch,
            ),
            trained_with_model=objective,
            settings={
                "objective": objective.settings(),
                "targets": fingerprint,
                "stored": targets.plan.summary(),
                "use_unlabeled": params.use_unlabeled,
            },
            teacher_outputs=describe_teacher_outputs(objective, targets),
        )

    return run_arm_stage(
        method, prepare, seeds=params.seeds, test=sets.test, data=data, runtime=runtime
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=[*EXPERIMENTS, *find_methods()])
    run_stage(partial(main, method=parser.parse_args().method))
