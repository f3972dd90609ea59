"""Where a stage finds its inputs and puts its outputs; what all stages share."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from distillation.allocator import keep_freed_memory
from distillation.params import (
    BUILT_IN_DATASETS,
    PATH_KEYS,
    Params,
    check_paths,
    load_params,
)
from distillation.program import run_program

logger = logging.getLogger(__name__)

RAW = Path("data/raw")
PREPARED = Path("data/prepared")
TARGETS = Path("data/targets")
PREDICTIONS = Path("data/predictions")
MODELS = Path("models")
TEACHER_WEIGHTS = MODELS / "teacher.safetensors"
ARM_WEIGHTS = MODELS / "arms"
STUDENT = MODELS / "student"
METRICS = Path("metrics")
SEEDS = METRICS / "seeds"
LIVE = METRICS / "live"

_TEMPORARY_WORKSPACES = (".dvc", "tmp", "exps")


def run_stage(main: Callable[[Params], Sequence[Path]]) -> NoReturn:
    """Run a stage's `main` with the checked parameters, and end the program.

    `main` returns the files and folders it made, which the stage's last line names. A user's
    mistake and an interrupt end in one line too.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    keep_freed_memory()
    name = " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]])

    def work() -> None:
        start = time.perf_counter()
        made = main(_resolve_paths(load_params()))
        seconds = time.perf_counter() - start
        logger.info("%s: %s in %s", name, ", ".join(map(str, made)), describe_duration(seconds))

    sys.exit(run_program(work, if_interrupted=f"the same command starts {name} again"))


def describe_duration(seconds: float) -> str:
    """Put a time into words, as exactly as anybody wants to know it."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def device_name() -> str:
    """Give the device to run on: `DISTILLATION_DEVICE`, or `auto`.

    It is no parameter: the machine one happens to use is no part of an experiment.
    """
    return os.environ.get("DISTILLATION_DEVICE", "auto")


def weights_path(arm: str) -> Path:
    """Give the place of the weights of the teacher, or of an arm's student."""
    return TEACHER_WEIGHTS if arm == "teacher" else ARM_WEIGHTS / f"{arm}.safetensors"


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


def scratch_directory() -> Path:
    """Give the folder of what is kept between a killed run and the next, and of nothing else.

    It lies in the main work tree: a temporary one has another name the next time.
    """
    return main_workspace(Path(os.environ.get("DVC_ROOT", "."))) / ".scratch"


def _resolve_paths(params: Params) -> Params:
    """Make the paths among the parameters good from the stage's folder."""
    found: dict[str, Any] = {
        key: str(_find(value))
        for key in PATH_KEYS
        if (value := getattr(params, key)) is not None and value not in BUILT_IN_DATASETS
    }
    return check_paths(dataclasses.replace(params, **found))


def _find(path: str) -> Path:
    """Look for a file from the stage's folder, then from the main workspace."""
    here = Path(path).expanduser()
    there = main_workspace() / here
    return there if there.exists() and not here.exists() else here
