"""Turn the data set into one packed set: images, splits, the labelled subset, provenance."""

from __future__ import annotations

from pathlib import Path

from distillation.data.packed import save_packed
from distillation.data.sources import prepare
from distillation.files import write_json
from distillation.model_names import check_model_name
from distillation.params import Params
from stages.workspace import METRICS, PREPARED, RAW, main_workspace, run_stage


def main(params: Params) -> list[Path]:
    """Write `data/prepared` and `metrics/data.json`."""
    for key in ("teacher", "student"):
        # A typing mistake here would else be found by a later stage, after this one's work.
        check_model_name(getattr(params, key), key=key)
    data = prepare(params, raw_directory=main_workspace() / RAW)
    save_packed(data, PREPARED)
    write_json(METRICS / "data.json", {**data.provenance, "counts": data.counts()})
    return [PREPARED, METRICS / "data.json"]


if __name__ == "__main__":
    run_stage(main)
