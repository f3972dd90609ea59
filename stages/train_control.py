"""Train the student by labels alone, with the recipe of the distilled ones: the control."""

from __future__ import annotations

from pathlib import Path

from distillation.base.methods import CONTROL
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.runs.method import run_method
from distillation.training.supervised import open_controls
from stages.entry import run_stage


def main(params: Params, workspace: Workspace) -> list[Path]:
    """Write the control's model, metrics and predictions."""
    return run_method(CONTROL, open_controls, params, workspace, seeds=params.seeds)


if __name__ == "__main__":
    run_stage(main)
