"""Distil the teacher into the student by one method: `python -m stages.distill --method exp1`."""

from __future__ import annotations

import argparse
import logging
from functools import partial
from pathlib import Path

from distillation.base.methods import EXPERIMENTS, further_methods
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.distilling.students import open_distillations
from distillation.runs.method import run_method
from distillation.training.setup import load_setup, load_teacher
from stages.entry import run_stage
from stages.teacher_targets import store

logger = logging.getLogger(__name__)


def main(params: Params, workspace: Workspace, *, method: str) -> list[Path]:
    """Write the method's model, metrics and predictions.

    The teacher's outputs are in no remote (`push: false` in dvc.yaml): where a clone lacks them,
    the first distillation computes them, and keeps them where DVC looks for none.
    """
    if not workspace.targets.exists():
        logger.info(
            "%s is missing: the teacher's outputs are computed, or taken from %s",
            workspace.targets,
            workspace.own_targets,
        )
        setup = load_setup(params, workspace)
        teacher = load_teacher(setup, workspace.teacher_weights)
        store(teacher, setup, workspace.own_targets, cache_gb=params.teacher_cache_gb)
    open_trainings = partial(open_distillations, method=method)
    return run_method(method, open_trainings, params, workspace, seeds=params.seeds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", required=True, choices=[*EXPERIMENTS, *further_methods()])
    run_stage(partial(main, method=parser.parse_args().method))
