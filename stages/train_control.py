"""Train the student by labels alone, with the recipe of the distilled ones: the control."""

from __future__ import annotations

from pathlib import Path

from distillation.data.packed import load_packed
from distillation.params import Params
from distillation.runtime import make_runtime
from distillation.training.arms import control_set, create_student, student_recipe, to_device
from distillation.training.supervised import train_supervised
from stages.arm import Training, run_arm_stage
from stages.workspace import PREPARED, device_name, run_stage


def main(params: Params) -> list[Path]:
    """Write the control's model, metrics and predictions."""
    runtime = make_runtime(
        precision=params.precision, compiles=params.compile, device_name=device_name()
    )
    data = load_packed(PREPARED)
    sets = to_device(data, runtime.device)
    train = control_set(sets.train, params)

    def prepare(seed: int) -> Training:
        student = create_student(params, data, seed=seed).to(runtime.device)
        recipe = student_recipe(params, view_seed=data.view_seed, seed=seed)
        return Training(
            model=student,
            recipe=recipe,
            train=lambda name, on_epoch, states: train_supervised(
                student,
                train=train,
                validation=sets.validation,
                recipe=recipe,
                runtime=runtime,
                name=name,
                states=states,
                on_epoch=on_epoch,
            ),
            settings={"use_unlabeled": params.use_unlabeled},
        )

    return run_arm_stage(
        "control", prepare, seeds=params.seeds, test=sets.test, data=data, runtime=runtime
    )


if __name__ == "__main__":
    run_stage(main)
