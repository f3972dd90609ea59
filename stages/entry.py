"""How a stage of the pipeline starts and ends: parameters, paths, last line, exit status."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from distillation.base.allocator import keep_freed_memory
from distillation.base.command import run_command
from distillation.base.durations import describe_duration, duration_of_rest, keep_duration
from distillation.base.locks import one_at_a_time
from distillation.base.params import (
    ParamError,
    Params,
    check_paths,
    find_path,
    load_params,
    named_paths,
    replace,
)
from distillation.base.workspace import Workspace

logger = logging.getLogger(__name__)

Stage = Callable[[Params, Workspace], Sequence[Path]]
"""Does a stage's work; returns the files and folders it made."""

_BRING_BACK = (
    "DVC has removed what this stage had made before: put the value right, then `dvc checkout` and "
    "`git checkout -- metrics models` bring it back"
)
_TEMPORARY_WORKSPACES = (".dvc", "tmp", "exps")


def run_stage(main: Stage) -> NoReturn:
    """Run a stage with the checked parameters in the current folder, and end the program.

    A user's mistake and an interrupt end in one line.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    keep_freed_memory()
    name = " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]])
    sys.exit(
        run_command(
            lambda: do_stage(name, main, load_stage_params(name), find_workspace()),
            if_interrupted=f"the same command starts {name} again",
        )
    )


def do_stage(name: str, main: Stage, params: Params, workspace: Workspace) -> None:
    """Do a stage's work, and log what it made in how long.

    Raises:
        LockError: another process is at it in this workspace.
    """
    start = time.perf_counter()
    with one_at_a_time(name, workspace.locks):
        made = main(params, workspace)
    seconds = time.perf_counter() - start
    logger.info(
        "%s: %s in %s%s",
        name,
        ", ".join(map(str, made)),
        describe_duration(seconds),
        _describe_rest(name, workspace),
    )
    keep_duration(workspace.durations, name, seconds)


def find_workspace() -> Workspace:
    """Return the workspace of a stage that DVC, or a user, runs in the current folder.

    Archives lie in the main work tree, and so do the states of killed trainings: a temporary
    work tree has another name the next time.
    """
    return Workspace(
        raw=main_work_tree() / "data" / "raw",
        scratch=main_work_tree(Path(os.environ.get("DVC_ROOT", "."))) / ".scratch",
        device_name=os.environ.get("DISTILLATION_DEVICE", "auto"),
    )


def _describe_rest(name: str, workspace: Workspace) -> str:
    """Return how long what DVC may still run after this stage took the last time, if known."""
    if "DVC_STAGE" not in os.environ:
        return ""
    import psutil  # DVC needs it, so it is there

    parents = psutil.Process().parents()
    commands = (one.create_time() for one in parents if "dvc" in " ".join(one.cmdline()[:3]))
    since = next(commands, time.time())
    seconds = duration_of_rest(workspace.durations, name, since=since)
    return f"; what followed it took {describe_duration(seconds)} the last time" if seconds else ""


def main_work_tree(directory: Path | None = None) -> Path:
    """Return the folder of the user's own work tree.

    `dvc exp run --temp` and `--queue` run stages in a copy below `.dvc/tmp/exps`, which holds
    what git tracks and nothing else: archives and checkpoints lie in the original.
    """
    here = (directory or Path.cwd()).resolve()
    for parent in here.parents:
        if parent.parts[-3:] == _TEMPORARY_WORKSPACES:
            return parent.parents[2]
    return here


def load_stage_params(name: str) -> Params:
    """Read the parameters; a refusal says where what the stage had made before is.

    DVC removes a stage's outputs before it starts the stage. `check_inputs` has none to speak of.
    """
    try:
        return _load_params()
    except ParamError as error:
        if name == "check_inputs" or not Path("dvc.lock").exists():
            raise
        raise ParamError(f"{error}\n{_BRING_BACK}") from error


def _load_params() -> Params:
    """Read the parameters; a method that is missing in a temporary work tree gets a hint."""
    try:
        return _resolve_paths(load_params())
    except ParamError as error:
        losses = Path("distillation") / "losses"
        here, there = (
            {path.name for path in folder.glob("*.py")}
            for folder in (losses, main_work_tree() / losses)
        )
        if not (untracked := sorted(str(losses / name) for name in there - here)):
            raise
        files = " ".join(untracked)
        raise ParamError(
            f"{error}\ndvc exp run --temp and --queue see only what git tracks: git add {files}"
        ) from error


def _resolve_paths(params: Params) -> Params:
    """Make the paths among the parameters good from the stage's folder."""
    there = {
        key: f"{prefix}{main_work_tree() / path}"
        for key, (prefix, path) in named_paths(params).items()
        if find_path(path) is None and find_path(str(main_work_tree() / path)) is not None
    }
    return check_paths(replace(params, **there))
