"""Turn the data set into one prepared set: images, splits, the labelled subset, provenance."""

from __future__ import annotations

from pathlib import Path

from distillation.base.files import write_json
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.data.prepared import save_prepared
from distillation.models.names import check_model_name
from distillation.sources.prepare import prepare
from distillation.training.optimizer import check_optimizer
from stages.entry import run_stage


def main(params: Params, workspace: Workspace) -> list[Path]:
    """Write `data/prepared` and `metrics/data.json`."""
    # A typing mistake in one of these would else be found by a later stage, after others' work.
    for key in ("teacher", "student"):
        check_model_name(getattr(params, key), key=key)
    for key in ("teacher_optimizer", "optimizer"):
        check_optimizer(getattr(params, key), getattr(params, f"{key}_options") or {}, key=key)
    data = prepare(params, raw_directory=workspace.raw)
    save_prepared(data, workspace.prepared)
    metrics = workspace.metrics / "data.json"
    write_json(metrics, {**data.provenance, "counts": data.counts()})
    return [workspace.prepared, metrics]


if __name__ == "__main__":
    run_stage(main)
