"""Ship the best method's student: ONNX, int8, a folder for timm, a card; measured."""

from __future__ import annotations

from pathlib import Path

import torch

from distillation.base.checksums import seal
from distillation.base.files import new_directory, write_json, write_text
from distillation.base.methods import DEFAULT_METHODS, sort_methods
from distillation.base.params import Params
from distillation.base.workspace import TEACHER, Workspace
from distillation.data.prepared import load_prepared
from distillation.export.card import make_card
from distillation.export.selection import select_method
from distillation.export.student import Teacher, export_student, log_result
from distillation.results.outcome import read_baseline, read_environment, read_trainings
from distillation.training.setup import STUDENT, load_trained
from stages.entry import run_stage


def main(params: Params, workspace: Workspace) -> list[Path]:
    """Write `models/student` and `metrics/deploy.json`, whole or not at all.

    Everything runs on the CPU in float32, whatever the training ran on.
    """
    data = load_prepared(workspace.prepared)
    names = sort_methods([*DEFAULT_METHODS, *params.methods])
    trainings = {name: read_trainings(workspace, name) for name in names}
    selection = select_method(trainings, wanted=params.export_method)
    weights = workspace.weights(selection.method)
    student = load_trained(STUDENT, params, data, weights)
    teacher = load_trained(TEACHER, params, data, workspace.teacher_weights)
    measured = read_baseline(workspace)["teacher"]
    with new_directory(workspace.student) as new:
        deploy = export_student(
            student,
            new,
            selection=selection,
            teacher=Teacher(model=teacher, acc=measured["acc"]),
            data=data,
            num_threads=torch.get_num_threads(),
        )
        card = make_card(
            deploy,
            selection=selection,
            methods=trainings,
            teacher=measured,
            data=data,
            environments={
                name: read_environment(workspace, name) for name in (TEACHER, selection.method)
            },
        )
        write_text(new / "README.md", card)
    metrics = workspace.metrics / "deploy.json"
    write_json(metrics, seal(deploy))
    log_result(deploy, selection)
    return [workspace.student, metrics]


if __name__ == "__main__":
    run_stage(main)
