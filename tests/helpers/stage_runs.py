"""Every stage of a run in this process, as its program does it, and what it leaves."""

import json
from functools import partial

import yaml

from distillation.base.command import run_command
from distillation.base.params import load_params
from distillation.base.workspace import Workspace
from stages import (
    check_inputs,
    distill,
    eval_baseline,
    export_student,
    prepare_data,
    summarize,
    teacher_targets,
    train_control,
    train_teacher,
)
from stages.entry import do_stage
from tests.conftest import TINY
from tests.helpers.damage import differences

STAGES = {
    "check_inputs": check_inputs.main,
    "prepare_data": prepare_data.main,
    "train_teacher": train_teacher.main,
    "eval_baseline": eval_baseline.main,
    "teacher_targets": teacher_targets.main,
    "train_control": train_control.main,
    "distill_exp1": partial(distill.main, method="exp1"),
    "distill_exp2": partial(distill.main, method="exp2"),
    "distill_exp3": partial(distill.main, method="exp3"),
    "distill@dkd": partial(distill.main, method="dkd"),
    "export_student": export_student.main,
    "summarize": summarize.main,
}


def outputs(run, stage):
    lock = yaml.safe_load((run / "dvc.lock").read_text(encoding="utf-8"))
    return [out["path"] for out in lock["stages"][stage]["outs"]]


def do(stage, root):
    """Run a stage as its program does, but for starting python; returns the exit status."""
    workspace = Workspace(root=root, scratch=root / ".scratch", device_name="cpu")
    work = partial(do_stage, stage, STAGES[stage], load_params(root / "params.yaml"), workspace)
    return run_command(work, if_interrupted="")


def check_whole(root, undisturbed):
    """Whatever there is, is whole: of the undisturbed run, with no beginnings beside it."""
    wrong = [
        name
        for name in differences(root, undisturbed, "data", "models", "metrics", "report")
        if (root / name).exists()
    ]
    assert wrong == []


def options_without_dvc(root):
    """Return the options of `python -m distillation` for two methods with a run's parameters."""
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    texts = {key: values[key] for key in TINY}
    return [
        *(
            f"--{key.replace('_', '-')}={text if isinstance(text, str) else json.dumps(text)}"
            for key, text in texts.items()
        ),
        *("--experiment", "exp1", "control"),
    ]
