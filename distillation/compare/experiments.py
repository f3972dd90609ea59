"""The runs in what `dvc exp show --json` prints (DVC 3).

It is a list of revisions, the work tree first, each with its experiments. It has parameters and
flat metrics, but not the trainings one by one: those are read from git, at the revision.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from distillation.compare.projects import TEACHER, Found, read_project
from distillation.compare.runs import CompareError, NoTrainingsError, Run, make_run
from distillation.compare.trees import FolderTree, RevisionTree, Tree, find_commit

_WORKSPACE = "workspace"
_METRICS = "metrics"
_PARAMS = "params.yaml"
_FINISHED = (None, "success")


def is_experiments(content: Any) -> bool:
    """Tell whether this is the output of `dvc exp show --json`."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(
            isinstance(entry, dict) and {"rev", "experiments"} <= set(entry) for entry in content
        )
    )


def read_experiments(source: str, content: list[dict[str, Any]]) -> Found:
    """Read every revision and experiment that has finished; the others get a note.

    Args:
        source: what the user calls it.
        content: as parsed from JSON.

    Raises:
        CompareError: trainings are not known one by one, or something is missing or of the wrong
            type.
    """
    runs: list[Run] = []
    notes: list[str] = []
    for entry, state in _entries(content):
        name = f"{source}: {entry.get('name') or entry['rev'][:10]}"
        if state not in _FINISHED or entry.get("error") or not entry.get("data"):
            notes.append(f"Left out: {name} ({_reason(entry, state)}).")
            continue
        found = _read_entry(name, entry)
        runs += found.runs
        notes += found.notes
    return Found(runs=runs, notes=notes)


def _entries(content: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Give each revision and experiment, with the state of what runs it, if anything does."""
    for revision in content:
        yield revision, None
        for experiment in revision["experiments"] or []:
            state = (experiment.get("executor") or {}).get("state")
            for entry in (experiment.get("revs") or [])[:1]:
                yield entry, state


def _reason(entry: Mapping[str, Any], state: str | None) -> str:
    if state not in _FINISHED:
        return str(state)
    error = entry.get("error")
    return str(error.get("msg") if isinstance(error, dict) else error or "no data")


def _read_entry(name: str, entry: Mapping[str, Any]) -> Found:
    data = entry["data"]
    params = ((data.get("params") or {}).get(_PARAMS) or {}).get("data")
    flat = _flat_metrics(data.get("metrics") or {})
    tree = _find_tree(name, entry["rev"], flat)
    if tree is not None:
        try:
            return read_project(tree, params=params)
        except NoTrainingsError:
            pass
    if not flat:
        return Found(notes=[f"Left out: {name} (no metrics of a method)."])
    if params is None:
        raise CompareError(f"{name}: no parameters; allowed: those of {_PARAMS}")
    if old := [method for method, metrics in flat.items() if "n" not in metrics]:
        return Found(
            notes=[f"Left out: {name} (its metrics do not say of how many trainings: {old[0]})."]
        )
    if entry["rev"] == _WORKSPACE and any(metrics["n"] != 1 for metrics in flat.values()):
        return Found(notes=[f"Left out: {name} (metrics/ of this folder has other trainings)."])
    return Found(
        runs=[_flat_run(name, method, metrics, params) for method, metrics in flat.items()],
        notes=[
            f"{name}: its revision cannot be read here, so that its metrics files cannot be "
            "checked to be made with its parameters."
        ],
    )


def _flat_metrics(files: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Give the flat metrics of each method: of what lies in `metrics/`, what was trained."""
    found: dict[str, Mapping[str, Any]] = {}
    for path, content in files.items():
        place, values = PurePosixPath(path), (content or {}).get("data")
        if place.parent.name == _METRICS and isinstance(values, dict) and "after_acc" in values:
            found[place.stem] = values
    found.pop(TEACHER, None)
    return found


def _find_tree(name: str, rev: str, flat: Mapping[str, Mapping[str, Any]]) -> Tree | None:
    if rev != _WORKSPACE:
        commit = find_commit(rev)
        return None if commit is None else RevisionTree(name, commit)
    # The work tree may be another by now, or another project's.
    here = FolderTree(name, Path(_METRICS))
    try:
        runs = read_project(here).runs
    except CompareError:
        return None
    means = {run.method: statistics.fmean(t.after_acc for t in run.trainings) for run in runs}
    is_same = bool(means) and all(
        method in flat and round(value, 4) == flat[method]["after_acc"]
        for method, value in means.items()
    )
    return here if is_same else None


def _flat_run(name: str, method: str, metrics: Mapping[str, Any], params: Mapping[str, Any]) -> Run:
    """Make a run of flat metrics, which are those of a training where there was one alone."""
    if metrics["n"] != 1:
        raise CompareError(
            f"{name}: {method} was trained {metrics['n']} times, and its revision, which has the "
            "trainings one by one, cannot be read here; allowed: to run this in the repository "
            "dvc exp show was run in (or get the revision by dvc exp pull or git fetch), or "
            "experiments with one seed"
        )
    seeds = params.get("seeds")
    [seed, *others] = seeds if isinstance(seeds, list) and seeds else [seeds]
    seed = metrics.get("saved_seed", None if others else seed)
    record = {**metrics, "seed": seed}
    content = {"data": metrics.get("data"), "seeds": [record]}
    return make_run(name, method, content, params=params)
