"""Distil the teacher into the student by one experiment's loss: `--experiment exp1|exp2|exp3`."""

from __future__ import annotations

import argparse
from functools import partial

from distillation.data.packed import load_packed
from distillation.distill import (
    FEATURE_LOSS_MODULES,
    build_objective,
    describe_teacher_outputs,
    distill,
)
from distillation.params import Params
from distillation.runtime import make_runtime
from distillation.targets import fingerprint_targets, load_targets
from distillation.training.arms import create_student, load_teacher, student_recipe, to_device
from stages.arm import run_arm_stage
from stages.workspace import MODELS, PREPARED, TARGETS, device_name, run_stage


def main(params: Params, *, experiment: str) -> None:
    """Write `models/<experiment>.safetensors` and `metrics/<experiment>.json`."""
    runtime = make_runtime(
        precision=params.precision, compiles=params.compile, device_name=device_name()
    )
    data = load_packed(PREPARED)
    sets = to_device(data, runtime.device)
    recipe = student_recipe(params, view_seed=data.view_seed)
    student = create_student(params, data).to(runtime.device)
    teacher = load_teacher(params, data, MODELS / "teacher.safetensors").to(runtime.device)
    fingerprint = fingerprint_targets(
        teacher, data=data, views=recipe.views, num_views=recipe.num_views, runtime=runtime
    )
    targets = load_targets(
        TARGETS, fingerprint=fingerprint, train=sets.train, device=runtime.device
    )
    objective = build_objective(
        experiment,
        params,
        student=student,
        teacher=teacher,
        image_size=data.image_size,
        targets=targets,
    )
    run_arm_stage(
        experiment,
        student,
        lambda on_epoch, states: distill(
            student,
            objective,
            train=sets.train,
            validation=sets.validation,
            recipe=recipe,
            runtime=runtime,
            name=experiment,
            targets=targets,
            states=states,
            on_epoch=on_epoch,
        ),
        test=sets.test,
        data=data,
        recipe=recipe,
        runtime=runtime,
        trained_with_model=objective,
        settings={
            "objective": objective.settings(),
            "targets": fingerprint,
            "stored": targets.plan.summary(),
        },
        teacher_outputs=describe_teacher_outputs(objective, targets),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", choices=sorted(FEATURE_LOSS_MODULES), required=True)
    run_stage(partial(main, experiment=parser.parse_args().experiment))
