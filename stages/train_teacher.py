"""Train the teacher on the labelled images, or take its checkpoint as it is."""

from __future__ import annotations

import logging
from pathlib import Path

from distillation.data.packed import load_packed
from distillation.params import Params
from distillation.runtime import make_runtime
from distillation.training.arms import create_teacher, is_trained, teacher_recipe, to_device
from distillation.training.supervised import train_supervised
from stages.arm import Training, run_arm_stage
from stages.workspace import PREPARED, device_name, run_stage

logger = logging.getLogger(__name__)


def main(params: Params) -> list[Path]:
    """Write the teacher's model, metrics and predictions."""
    runtime = make_runtime(
        precision=params.precision, compiles=params.compile, device_name=device_name()
    )
    data = load_packed(PREPARED)
    sets = to_device(data, runtime.device)
    if not is_trained(params):
        logger.warning(
            "WARNING: the teacher is untrained (teacher_epochs: 0 and no teacher_checkpoint): "
            "its outputs are noise, and what is distilled from it says nothing about a method"
        )

    def prepare(seed: int) -> Training:
        teacher = create_teacher(params, data).to(runtime.device)
        recipe = teacher_recipe(params, view_seed=data.view_seed)
        return Training(
            model=teacher,
            recipe=recipe,
            train=lambda name, on_epoch, states: train_supervised(
                teacher,
                train=sets.train,
                validation=sets.validation,
                recipe=recipe,
                runtime=runtime,
                name=name,
                states=states,
                on_epoch=on_epoch,
            ),
        )

    return run_arm_stage(
        "teacher", prepare, seeds=[params.seed], test=sets.test, data=data, runtime=runtime
    )


if __name__ == "__main__":
    run_stage(main)
