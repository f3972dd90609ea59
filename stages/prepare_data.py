"""Turn the data set into one prepared set: images, splits, the labelled subset, provenance."""

from __future__ import annotations

from pathlib import Path

from distillation.base.files import write_json
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.sources.prepare import prepare
from stages.entry import run_stage


def main(params: Params, workspace: Workspace) -> list[Path]:
    """Write `data/prepared` and `metrics/data.json`."""
    data = prepare(params, workspace.prepared, raw_directory=workspace.raw)
    metrics = workspace.metrics / "data.json"
    write_json(metrics, {**data.provenance, "counts": data.counts()})
    return [workspace.prepared, metrics]


if __name__ == "__main__":
    run_stage(main)
