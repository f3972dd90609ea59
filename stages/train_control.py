"""Train the student by labels alone, with the recipe of the distilled ones: the control."""

from __future__ import annotations

from distillation.data.packed import load_packed
from distillation.params import Params
from distillation.runtime import make_runtime
from distillation.training.arms import create_student, student_recipe, to_device
from distillation.training.supervised import train_supervised
from stages.arm import run_arm_stage
from stages.workspace import PREPARED, device_name, run_stage


def main(params: Params) -> None:
    """Write `models/control.safetensors` and `metrics/control.json`."""
    runtime = make_runtime(
        precision=params.precision, compiles=params.compile, device_name=device_name()
    )
    data = load_packed(PREPARED)
    sets = to_device(data, runtime.device)
    student = create_student(params, data).to(runtime.device)
    recipe = student_recipe(params, view_seed=data.view_seed)
    run_arm_stage(
        "control",
        student,
        lambda on_epoch, states: train_supervised(
            student,
            train=sets.train,
            validation=sets.validation,
            recipe=recipe,
            runtime=runtime,
            name="control",
            states=states,
            on_epoch=on_epoch,
        ),
        test=sets.test,
        data=data,
        recipe=recipe,
        runtime=runtime,
    )


if __name__ == "__main__":
    run_stage(main)
