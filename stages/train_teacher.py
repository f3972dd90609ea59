"""Train the teacher on the labelled images, or take its checkpoint as it is."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from distillation.base.params import Params
from distillation.base.workspace import TEACHER, Workspace
from distillation.runs.method import run_method
from distillation.training.setup import create_teacher, is_trained, load_setup
from distillation.training.supervised import teacher_training
from distillation.training.teacher_check import check_given_teacher
from stages.entry import run_stage

logger = logging.getLogger(__name__)


def main(params: Params, workspace: Workspace) -> list[Path]:
    """Write the teacher's model, metrics and predictions."""
    setup, may_be_poor = load_setup(params, workspace), params.allow_poor_teacher
    if not is_trained(params):
        logger.warning(
            "WARNING: the teacher is untrained (teacher_epochs: 0 and no teacher_checkpoint): "
            "its outputs are noise, and what is distilled from it says nothing about a method"
        )
    elif params.teacher_epochs == 0:
        warning = check_given_teacher(
            create_teacher(setup),
            setup.sets.validation,
            runtime=setup.runtime,
            is_allowed=may_be_poor,
        )
        if warning is not None:
            logger.warning("%s", warning)
    make_training = partial(teacher_training, setup)
    return run_method(TEACHER, make_training, setup, workspace, seeds=[params.seed])


if __name__ == "__main__":
    run_stage(main)
