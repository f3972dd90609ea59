"""Train the student by labels alone, with the recipe of the distilled ones: the control.

With `--epochs 40` it is trained for another length, by the recipe of that length.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from distillation.base.methods import CONTROL
from distillation.base.params import Params
from distillation.base.workspace import Workspace, control_name
from distillation.runs.method import run_method
from distillation.training.supervised import open_controls
from stages.entry import run_stage


def main(params: Params, workspace: Workspace, *, epochs: int | None = None) -> list[Path]:
    """Write the control's model, metrics and predictions, at the students' length or another."""
    method = CONTROL if epochs is None else control_name(epochs)
    open_trainings = partial(open_controls, epochs=epochs)
    return run_method(method, open_trainings, params, workspace, seeds=params.seeds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int)
    run_stage(partial(main, epochs=parser.parse_args().epochs))
