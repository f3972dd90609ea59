"""Run the frozen teacher once over every view the students will see, and store its outputs."""

from __future__ import annotations

from pathlib import Path

from distillation.base.files import write_json
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.distilling.storing import store_teacher_outputs
from distillation.distilling.teacher_outputs import output_settings
from distillation.training.setup import distillation_set, load_setup, load_teacher
from stages.entry import run_stage


def main(params: Params, workspace: Workspace) -> list[Path]:
    """Write `data/targets` and `metrics/targets.json`."""
    setup = load_setup(params, workspace)
    plan = store_teacher_outputs(
        load_teacher(setup, workspace.teacher_weights),
        distillation_set(setup),
        workspace.targets,
        cache_gb=params.teacher_cache_gb,
        **output_settings(setup),
    )
    metrics = workspace.metrics / "targets.json"
    write_json(metrics, {**plan.summary(), "data": setup.data.source})
    return [workspace.targets, metrics]


if __name__ == "__main__":
    run_stage(main)
