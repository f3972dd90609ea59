"""Run the frozen teacher once over every view the students will see, and store its outputs."""

from __future__ import annotations

from pathlib import Path

from distillation.base.checksums import hash_json, read_sealed
from distillation.base.files import write_json
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.distilling.cache_plan import CachePlan
from distillation.distilling.storing import store_teacher_outputs
from distillation.distilling.teacher_outputs import META_FILE, output_settings
from distillation.models.classifier import Classifier
from distillation.training.setup import Setup, distillation_set, load_setup, load_teacher
from stages.entry import run_stage


def main(params: Params, workspace: Workspace) -> list[Path]:
    """Write `data/targets`, what they cost, and what distillations depend on: targets.json."""
    setup = load_setup(params, workspace)
    teacher = load_teacher(setup, workspace.teacher_weights)
    cost, metrics = workspace.costs("targets"), workspace.metrics / "targets.json"
    plan = store(teacher, setup, workspace.targets, cache_gb=params.teacher_cache_gb, cost=cost)
    # The checksum of what has those of all files: it stands for the outputs in git. What made them
    # is none of it, so that equal outputs train nothing again.
    meta = read_sealed(workspace.targets / META_FILE)
    checksum = hash_json({key: value for key, value in meta.items() if key != "made_by"})
    content = {**plan.summary(), "data": setup.data.source, "sha256": checksum}
    write_json(metrics, content)
    return [workspace.targets, metrics, cost]


def store(
    teacher: Classifier,
    setup: Setup,
    directory: Path,
    *,
    cache_gb: float,
    cost: Path | None = None,
) -> CachePlan:
    """Store the teacher's outputs in a folder, unless they are there."""
    return store_teacher_outputs(
        teacher,
        distillation_set(setup),
        directory,
        cache_gb=cache_gb,
        cost=cost,
        **output_settings(setup),
    )


if __name__ == "__main__":
    run_stage(main)
