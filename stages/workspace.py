"""Where a stage finds its inputs and puts its outputs; what all stages share."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distillation.errors import DistillationError
from distillation.params import BUILT_IN_DATASETS, ParamError, Params, load_params

RAW = Path("data/raw")
PREPARED = Path("data/prepared")
MODELS = Path("models")
METRICS = Path("metrics")
LIVE = METRICS / "live"

_TEMPORARY_WORKSPACES = (".dvc", "tmp", "exps")


def run_stage(main: Callable[[Params], None]) -> None:
    """Run a stage's `main` with the checked parameters; a user's mistake ends in one line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        main(_resolve_paths(load_params()))
    except DistillationError as error:
        sys.exit(f"error: {error}")


def device_name() -> str:
    """Give the device to run on: `DISTILLATION_DEVICE`, or `auto`.

    It is no parameter: the machine one happens to use is no part of an experiment.
    """
    return os.environ.get("DISTILLATION_DEVICE", "auto")


def main_workspace(directory: Path | None = None) -> Path:
    """Give the folder of the user's own work tree.

    `dvc exp run --temp` and `--queue` run stages in a copy below `.dvc/tmp/exps`, which holds
    what git tracks and nothing else: archives and checkpoints lie in the original.
    """
    here = (directory or Path.cwd()).resolve()
    for parent in here.parents:
        if parent.parts[-3:] == _TEMPORARY_WORKSPACES:
            return parent.parents[2]
    return here


def _resolve_paths(params: Params) -> Params:
    """Make the paths among the parameters good from the stage's folder."""
    found: dict[str, Any] = {
        key: _find(key, value)
        for key in ("dataset", "teacher_checkpoint", "student_checkpoint")
        if (value := getattr(params, key)) is not None and value not in BUILT_IN_DATASETS
    }
    return dataclasses.replace(params, **found)


def _find(key: str, path: str) -> str:
    """Look for a file from the stage's folder, then from the main workspace."""
    here = Path(path).expanduser()
    for candidate in (here, main_workspace() / here):
        if candidate.exists():
            return str(candidate)
    names = f"{', '.join(BUILT_IN_DATASETS)} or " if key == "dataset" else ""
    raise ParamError(f"{key}: got {path!r}; allowed: {names}the path of something that exists")
