"""The runs in a project's metrics folder: `seeds/<method>.json`, and the parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from distillation.compare.locks import read_locks
from distillation.compare.parameters import flatten
from distillation.compare.runs import CompareError, NoTrainingsError, Run, make_run, parse_json
from distillation.compare.trees import Tree

TEACHER = "teacher"
"""Is trained like a method, and is none to compare."""

_PARAMS = "params.yaml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """Runs, and sentences on what is not among them or not sure."""

    runs: Sequence[Run] = ()
    notes: Sequence[str] = ()


def read_project(tree: Tree, *, params: Mapping[str, Any] | None = None) -> Found:
    """Read the trainings of every method.

    A method whose lock file says that it was made with other parameters is left out, with a note.

    Args:
        tree: the project's files.
        params: the parameters, where they are known from elsewhere; else `params.yaml` has them.

    Raises:
        NoTrainingsError: there are no trainings.
        CompareError: a file cannot be used.
    """
    folder = f"{tree.metrics}/seeds"
    files = {name.removesuffix(".json"): name for name in tree.names(folder) if _is_json(name)}
    files.pop(TEACHER, None)
    if not files:
        raise NoTrainingsError(
            f"{tree.name}: no {folder}/<method>.json; allowed: where the pipeline has run "
            "(dvc repro writes them)"
        )
    params = _read_params(tree) if params is None else params
    locks = read_locks(tree)
    runs, notes = [], []
    for method, name in files.items():
        path = f"{folder}/{name}"
        text = tree.read(path) or b""
        content = parse_json(f"{tree.name}: {path}", text)
        if not isinstance(content, dict):
            raise CompareError(f"{tree.name}: {path}: allowed: a mapping with data and seeds")
        if params is not None and locks.is_outdated(path, text):
            notes.append(
                f"{tree.name}: {path} is not the file dvc.lock speaks of: whether it was made with "
                f"{_PARAMS} as it stands cannot be checked."
            )
        elif params is not None and (reason := locks.why_stale(path, flatten(params))):
            notes.append(f"Left out: {method} of {tree.name} ({reason}).")
            continue
        runs.append(make_run(tree.name, method, content, params=params))
    return Found(runs=runs, notes=notes)


def _read_params(tree: Tree) -> Mapping[str, Any] | None:
    text = tree.read(_PARAMS)
    if text is None:
        return None
    try:
        params = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise CompareError(f"{tree.name}: {_PARAMS}: not valid YAML: {problem}") from error
    if not isinstance(params, dict):
        raise CompareError(
            f"{tree.name}: {_PARAMS}: got {type(params).__name__}; allowed: a mapping of parameters"
        )
    return params


def _is_json(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")
