"""The runs in what `dvc exp show --json` prints (DVC 3).

It is a list of revisions, the work tree first, each with its experiments. It has parameters and
flat metrics, but not the trainings one by one: those are read from git, at the revision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from distillation.compare.projects import PARAMS, TEACHER, Run, make_runs, read_folder
from distillation.compare.records import NoTrainingsError, SeedsFile

_WORKSPACE = "workspace"
_METRICS = Path("metrics")


def is_experiments(content: Any) -> bool:
    """Tell whether this is the output of `dvc exp show --json`."""
    is_list = isinstance(content, list) and bool(content)
    return is_list and all(
        isinstance(entry, dict) and {"rev", "experiments"} <= set(entry) for entry in content
    )


def read_experiments_json(
    source: str, content: list[dict[str, Any]], notes: list[str]
) -> list[Run]:
    """Return the runs of every revision and experiment that has finished; others get a note.

    Raises:
        CompareError: something is missing or of the wrong type.
    """
    runs: list[Run] = []
    for entry, state in _entries(content):
        name = f"{source}: {entry.get('name') or entry['rev'][:10]}"
        error, data = entry.get("error") or {}, entry.get("data")
        if state in (None, "success") and data and not error:
            runs += _read_entry(name, entry["rev"], data, notes)
        else:
            reason = state if state != "success" else None
            notes.append(f"Left out: {name} ({reason or error.get('msg') or 'no data'}).")
    return runs


def _entries(content: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yield each revision and experiment, with the state of what runs it, if anything does."""
    for revision in content:
        yield revision, None
        for experiment in revision["experiments"] or []:
            state = (experiment.get("executor") or {}).get("state")
            for entry in (experiment.get("revs") or [])[:1]:
                yield entry, state


def _read_entry(name: str, revision: str, data: Mapping[str, Any], notes: list[str]) -> list[Run]:
    from distillation.compare.revisions import RevisionError, read_revision

    flat = _flat_metrics(data.get("metrics") or {})
    try:
        if revision != _WORKSPACE:
            return read_revision(revision, notes, name=name)
        if flat and all(_is_here(method, metrics) for method, metrics in flat.items()):
            return read_folder(str(_METRICS), notes, name=name)
    except (RevisionError, NoTrainingsError):
        pass
    if not flat:
        notes.append(f"Left out: {name} (no metrics of a method).")
        return []
    # Means of several seeds cannot be paired; those of one are what it ended with.
    if any(metrics.get("n") != 1 for metrics in flat.values()):
        notes.append(
            f"Left out: {name} (its trainings one by one are not here; run this where dvc exp show "
            "was run, or get the revision by dvc exp pull or git fetch)."
        )
        return []
    notes.append(
        f"{name}: its revision cannot be read here, so that its metrics files cannot be checked to "
        "be made with its parameters."
    )
    methods = {}
    for method, metrics in flat.items():
        records = [{**metrics, "seed": metrics.get("saved_seed")}]
        content = {"data": metrics.get("data"), "seeds": records}
        methods[method] = SeedsFile.check(f"{name}: {method}", content)
    params = ((data.get("params") or {}).get(PARAMS) or {}).get("data")
    return make_runs(name, methods, notes, params=params)


def _flat_metrics(files: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the flat metrics of each method: of what lies in `metrics/`, what was trained."""
    flat: dict[str, Mapping[str, Any]] = {}
    for path, content in files.items():
        place, values = PurePosixPath(path), (content or {}).get("data")
        if place.parent.name == _METRICS.name and isinstance(values, dict):
            flat[place.stem] = values
    return {k: v for k, v in flat.items() if k != TEACHER and "after_acc" in v}


def _is_here(method: str, metrics: Mapping[str, Any]) -> bool:
    """Tell whether the work tree has these metrics: it may be another by now, or elsewhere."""
    path = _METRICS / f"{method}.json"
    return path.is_file() and json.loads(path.read_bytes()) == metrics
