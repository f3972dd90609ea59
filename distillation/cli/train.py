"""`python -m distillation`: the pipeline's stages in one process, without DVC.

Every parameter of `params.yaml` is an option; an option left out has the file's value. Options
are checked, and the place for the results too, before any work starts.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from distillation.base.allocator import keep_freed_memory
from distillation.base.command import run_command, saying_on_interrupt
from distillation.base.files import new_file, write_text
from distillation.base.limits import describe_limit
from distillation.base.locks import one_at_a_time
from distillation.base.params import ParamError, Params, to_dict
from distillation.base.workspace import Workspace
from distillation.cli.options import PACKAGED_PARAMS, chosen_methods, params_from, parse_options
from distillation.results.outcome import (
    check_place,
    check_results_path,
    read_outcome,
    write_results,
)

logger = logging.getLogger(__name__)

_WRITTEN_HERE = "# The parameters of the last run here; python -m distillation wrote them."
_COMMAND = "python -m distillation"
_NOTHING_KEPT = (
    "nothing was kept; with --run-dir the same command goes on where it was, with --results-path "
    "every finished method's results are kept, with --save-teacher the teacher"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, as `distillation.base.command` counts."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    options = parse_options(arguments)
    keep_freed_memory()
    rest = _NOTHING_KEPT if options.run_dir is None else _goes_on_in(options.run_dir)
    return run_command(lambda: _check_and_run(options), if_interrupted=rest)


def _check_and_run(options: argparse.Namespace) -> None:
    if options.results_path is not None:
        check_results_path(options.results_path)
    if options.save_teacher is not None:
        if options.save_teacher.suffix != ".safetensors":
            raise ParamError(
                f"save-teacher: got {str(options.save_teacher)!r}; allowed ending: .safetensors"
            )
        check_place(options.save_teacher, name="save-teacher")
    params = params_from(options)
    if options.params == PACKAGED_PARAMS:
        logger.info("No params.yaml in this folder: parameters left out are those of the package.")
    kept: dict[Path, str] = {}
    with (
        _open_workspace(options, params) as workspace,
        saying_on_interrupt(lambda: _describe_kept(kept, options.run_dir)),
    ):
        _run(options, params, workspace, kept)


def _describe_kept(kept: Mapping[Path, str], run_dir: Path | None) -> str:
    files = [f"{path} holds {what}" for path, what in kept.items()]
    return "; ".join(files if run_dir is None else [*files, _goes_on_in(run_dir)])


def _goes_on_in(run_dir: Path) -> str:
    return f"{run_dir} holds what is finished, and the same command goes on there"


@contextmanager
def _open_workspace(options: argparse.Namespace, params: Params) -> Iterator[Workspace]:
    """Yield the workspace in the folder the user named, or in one that goes away."""
    if options.run_dir is None:
        with tempfile.TemporaryDirectory(prefix="distillation-") as folder:
            yield Workspace(
                root=Path(folder),
                raw=options.raw_directory,
                scratch=None,
                device_name=options.device,
                num_processes=options.processes,
            )
        return
    try:
        options.run_dir.mkdir(parents=True, exist_ok=True)
        is_usable = _is_run_folder(options.run_dir)
    except OSError as error:
        if describe_limit(error):
            raise
        is_usable = False  # something else is there, or it is longer than a path can be
    if not is_usable:
        raise ParamError(
            f"run-dir: got {str(options.run_dir)!r}; allowed: a folder that holds runs of "
            f"{_COMMAND} alone"
        )
    workspace = Workspace(
        root=options.run_dir,
        raw=options.raw_directory,
        scratch=options.run_dir / ".scratch",
        device_name=options.device,
        num_processes=options.processes,
        keeps_states=True,
    )
    # Another command would take away the teacher of this one's students.
    with one_at_a_time(_COMMAND, workspace.locks):
        # As in a project, the parameters lie beside the metrics. They are the last command's.
        text = yaml.safe_dump(to_dict(params), sort_keys=False, allow_unicode=True)
        write_text(options.run_dir / "params.yaml", f"{_WRITTEN_HERE}\n{text}")
        yield workspace


def _is_run_folder(folder: Path) -> bool:
    """Return whether a folder is free for runs: no project's, and without a user's parameters."""
    if (folder / "dvc.yaml").exists():
        return False
    if (folder / "metrics" / "seeds").is_dir():  # of runs before the file had its first line
        return True
    try:
        with (folder / "params.yaml").open(encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip() == _WRITTEN_HERE
    except FileNotFoundError:
        # Without it nothing here is of a run, and what a run writes would take its place.
        written = (
            "data/prepared",
            "data/targets",
            "data/predictions",
            "metrics",
            "models",
            "report",
        )
        return not any((folder / name).exists() for name in written)


def _run(
    options: argparse.Namespace, params: Params, workspace: Workspace, kept: dict[Path, str]
) -> None:
    """Train and compare; files the user asked for are added to `kept`, with what they hold."""
    # Imported late: --help and a wrong option should not wait for torch.
    import torch

    from distillation.cli.pipeline import run_pipeline, write_summary
    from distillation.compare.projects import write_made_with
    from distillation.training.denormals import set_threads
    from distillation.training.device import select_device

    select_device(options.device)
    set_threads(torch.get_num_threads())  # before any other computation starts them
    methods = chosen_methods(options.experiment, params)
    finished: list[str] = []

    def keep_teacher() -> None:
        if options.save_teacher is not None:
            with new_file(options.save_teacher) as new:
                shutil.copyfile(workspace.teacher_weights, new)
            kept[options.save_teacher] = "the trained teacher"

    def keep_results(method: str) -> None:
        finished.append(method)
        if options.run_dir is not None:
            write_made_with(workspace.metrics, method, to_dict(params))
        if options.results_path is not None:
            # Whatever comes: an interrupted run keeps the methods it has finished.
            write_results(options.results_path, read_outcome(workspace, finished), params)
            kept[options.results_path] = ", ".join(finished)

    run_pipeline(params, workspace, methods, after_teacher=keep_teacher, after_method=keep_results)
    if options.run_dir is not None:
        write_summary(params, workspace, methods)
    else:
        print(read_outcome(workspace, methods).to_text())
    for path in kept:
        print(f"Written to {path}: {kept[path]}.")
