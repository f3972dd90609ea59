"""The pipeline without DVC: its stages, one after another, in a folder of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from distillation.base.methods import CONTROL
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.distilling.limits import check_methods
from distillation.training.model_check import ModelFeatures
from distillation.training.setup import DataShape
from stages import (
    check_inputs,
    distill,
    eval_baseline,
    prepare_data,
    teacher_targets,
    train_control,
    train_teacher,
)
from stages.entry import Stage, do_stage

logger = logging.getLogger(__name__)


def run_pipeline(
    params: Params,
    workspace: Workspace,
    methods: Sequence[str],
    *,
    after_teacher: Callable[[], None] = lambda: None,
    after_method: Callable[[str], None] = lambda method: None,
) -> None:
    """Run every stage that the methods need, up to their trainings.

    Args:
        params: all hyperparameters, checked.
        workspace: where the stages write.
        methods: which methods to run.
        after_teacher: called once the teacher's weights are there.
        after_method: called with each method once its files are there.
    """
    is_distilled = any(method != CONTROL for method in methods)

    def look(shape: DataShape, features: ModelFeatures) -> None:
        check_methods(methods, params, num_classes=len(shape.class_names), features=features)

    _run("check_inputs", partial(check_inputs.main, look=look), params, workspace)
    _run("prepare_data", prepare_data.main, params, workspace)
    _run("train_teacher", train_teacher.main, params, workspace)
    after_teacher()
    _run("eval_baseline", eval_baseline.main, params, workspace)
    if is_distilled:
        _run("teacher_targets", teacher_targets.main, params, workspace)
    for method in methods:
        if method == CONTROL:
            _run("train_control", train_control.main, params, workspace)
        else:
            _run(f"distill {method}", partial(distill.main, method=method), params, workspace)
        after_method(method)
    if params.control_epochs and CONTROL not in methods:
        logger.info("control_epochs is left out: --experiment does not name the control")
    elif params.control_epochs and not workspace.keeps_states:
        logger.info("control_epochs is left out: its place is the report, which --run-dir keeps")
    else:
        for epochs in params.control_epochs:
            stage = partial(train_control.main, epochs=epochs)
            _run(f"train_control {epochs}", stage, params, workspace)


def write_summary(params: Params, workspace: Workspace, methods: Sequence[str]) -> None:
    """Run the stage `summarize` for these methods: tables, measures, the report."""
    # Imported late: the report's libraries are needed by nobody else.
    from stages import summarize

    _run("summarize", partial(summarize.main, methods=methods), params, workspace)


def _run(name: str, stage: Stage, params: Params, workspace: Workspace) -> None:
    if workspace.keeps_states:
        do_stage(name, stage, params, workspace)
    else:
        stage(params, workspace)  # what it made goes away, and need not be named
