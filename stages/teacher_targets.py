"""Run the frozen teacher once over every view the students will see, and store its outputs."""

from __future__ import annotations

from pathlib import Path

from distillation.data.packed import load_packed
from distillation.files import write_json
from distillation.params import Params
from distillation.runtime import make_runtime
from distillation.targets import compute_targets
from distillation.training.arms import (
    distillation_set,
    load_teacher,
    to_device,
    view_settings,
)
from stages.workspace import METRICS, PREPARED, TARGETS, TEACHER_WEIGHTS, device_name, run_stage


def main(params: Params) -> list[Path]:
    """Write `data/targets` and `metrics/targets.json`."""
    runtime = make_runtime(
        precision=params.precision, compiles=params.compile, device_name=device_name()
    )
    data = load_packed(PREPARED)
    teacher = load_teacher(params, data, TEACHER_WEIGHTS).to(runtime.device)
    plan = compute_targets(
        teacher,
        distillation_set(to_device(data, runtime.device).train, params),
        TARGETS,
        data=data,
        views=view_settings(params, view_seed=data.view_seed),
        num_views=params.num_views,
        cache_gb=params.teacher_cache_gb,
        runtime=runtime,
    )
    write_json(METRICS / "targets.json", {**plan.summary(), "data": data.source})
    return [TARGETS, METRICS / "targets.json"]


if __name__ == "__main__":
    run_stage(main)
