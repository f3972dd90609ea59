"""Train the teacher on the labelled images, or take its checkpoint as it is."""

from __future__ import annotations

from pathlib import Path

from distillation.base.params import Params
from distillation.base.workspace import TEACHER, Workspace
from distillation.runs.method import run_method
from distillation.training.supervised import open_teacher
from stages.entry import run_stage


def main(params: Params, workspace: Workspace) -> list[Path]:
    """Write the teacher's model, metrics and predictions."""
    return run_method(TEACHER, open_teacher, params, workspace, seeds=[params.seed])


if __name__ == "__main__":
    run_stage(main)
