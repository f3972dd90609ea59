"""Turn what the user names into runs: files, folders, revisions, experiments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillation.compare.experiments import is_experiments, read_experiments
from distillation.compare.projects import Found, read_project
from distillation.compare.runs import CompareError, NoTrainingsError, make_run, parse_json
from distillation.compare.trees import FolderTree, Tree, find_experiments, find_revision

STANDARD_INPUT = "-"
WORK_TREE = "metrics"


def read_sources(sources: Sequence[str], *, with_experiments: bool) -> Found:
    """Read every source.

    Args:
        sources: results files, outputs of `dvc exp show --json` (`-`: standard input), metrics
            folders, git revisions, names of experiments; none: the work tree's metrics.
        with_experiments: read all DVC experiments of the repository too. Those without trainings
            get a note; a work tree without any does too, unless it is asked for.

    Raises:
        CompareError: a source cannot be found or used, or there is nothing to compare.
    """
    found = [_read(source) for source in sources]
    optional: list[Tree] = [FolderTree(WORK_TREE, Path(WORK_TREE))] if not sources else []
    if not with_experiments:
        found += [read_project(tree) for tree in optional]
    else:
        for tree in [*optional, *find_experiments()]:
            try:
                found.append(read_project(tree))
            except NoTrainingsError:
                found.append(Found(notes=[f"Left out: {tree.name} (no {tree.metrics}/seeds)."]))
    runs = [run for part in found for run in part.runs]
    notes = list(dict.fromkeys(note for part in found for note in part.notes))
    if not runs:
        raise CompareError(" ".join(["nothing to compare: no source has trainings.", *notes]))
    return Found(runs=runs, notes=notes)


def _read(source: str) -> Found:
    path = Path(source)
    if source == STANDARD_INPUT:
        return _read_json("standard input", sys.stdin.buffer.read())
    try:
        if path.is_dir():
            return read_project(FolderTree(source, path))
        if path.exists():
            return _read_json(source, path.read_bytes())
    except OSError as error:
        raise CompareError(f"{source}: cannot be read ({error.strerror})") from error
    if path.suffix == ".json":
        raise CompareError(f"{source}: no such file")
    return read_project(find_revision(source))


def _read_json(source: str, text: bytes) -> Found:
    content = parse_json(source, text)
    if is_experiments(content):
        return read_experiments(source, content)
    if not isinstance(content, dict) or not isinstance(content.get("methods"), dict):
        keys = f"the keys {', '.join(content)}" if isinstance(content, dict) else "no mapping"
        raise CompareError(
            f"{source}: got JSON with {keys[:100]}; allowed: a results file of python -m "
            "distillation --results-path, or what dvc exp show --json prints"
        )
    return _read_results(source, content)


def _read_results(source: str, content: dict[str, Any]) -> Found:
    if missing := [key for key in ("data", "params") if key not in content]:
        raise CompareError(
            f"{source}: lacks {', '.join(missing)}; allowed: a results file as python -m "
            "distillation --results-path writes it"
        )
    if not isinstance(content["params"], dict):
        raise CompareError(f"{source}: got params {content['params']!r}; allowed: a mapping")
    runs = []
    for method, values in content["methods"].items():
        records = values.get("seeds") if isinstance(values, dict) else None
        found = {"data": content["data"], "seeds": records}
        runs.append(make_run(source, method, found, params=content["params"]))
    return Found(runs=runs)
