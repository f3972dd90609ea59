"""Distil the teacher into the student by one experiment's loss: `--experiment exp1|exp2|exp3`."""

from __future__ import annotations

import argparse
from functools import partial

from distillation.data.packed import load_packed
from distillation.device import select_device
from distillation.distill import FEATURE_LOSS_MODULES, build_objective, distill
from distillation.params import Params
from distillation.training.arms import create_student, load_teacher, student_recipe, to_device
from stages.arm import run_arm_stage
from stages.workspace import MODELS, PREPARED, device_name, run_stage


def main(params: Params, *, experiment: str) -> None:
    """Write `models/<experiment>.safetensors` and `metrics/<experiment>.json`."""
    device = select_device(device_name())
    data = load_packed(PREPARED)
    sets = to_device(data, device)
    student = create_student(params, data).to(device)
    teacher = load_teacher(params, data, MODELS / "teacher.safetensors").to(device)
    objective = build_objective(
        experiment, params, student=student, teacher=teacher, image_size=data.image_size
    )
    run_arm_stage(
        experiment,
        student,
        lambda on_epoch: distill(
            student,
            objective,
            train=sets.train,
            validation=sets.validation,
            recipe=student_recipe(params, view_seed=data.view_seed),
            name=experiment,
            on_epoch=on_epoch,
        ),
        test=sets.test,
        data=data,
        epochs=params.epochs,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", choices=sorted(FEATURE_LOSS_MODULES), required=True)
    run_stage(partial(main, experiment=parser.parse_args().experiment))
