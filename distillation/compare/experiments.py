"""The runs in what `dvc exp show --json` prints (DVC 3).

It is a list of revisions, the work tree first, each with its experiments. It has parameters and
a few means, but not the trainings one by one: those are read from git, at the revision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from distillation.compare.projects import Run, read_folder
from distillation.compare.records import NoTrainingsError

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
    entries = list(_entries(content))
    names = [entry.get("name") for entry, _ in entries]  # unique for each commit alone
    for entry, state in entries:
        own, revision = entry.get("name"), entry["rev"][:10]
        name = f"{source}: {own or revision}"
        if own and names.count(own) > 1:
            name += f" ({revision})"
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

    compared = _compared(data.get("metrics") or {})
    if not compared and revision == _WORKSPACE:
        notes.append(f"Left out: {name} (no metrics of a method).")
        return []
    try:
        if revision != _WORKSPACE:
            return read_revision(revision, notes, name=name)
        if all(_is_here(path, values) for path, values in compared.items()):
            return read_folder(str(_METRICS), notes, name=name)
    except (RevisionError, NoTrainingsError):
        pass
    notes.append(
        f"Left out: {name} (its trainings one by one are not here; run this where dvc exp show "
        "was run, or get the revision by dvc exp pull or git fetch)."
    )
    return []


def _compared(files: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `metrics/methods` held, by path."""
    return {
        path: (content or {}).get("data")
        for path, content in files.items()
        if PurePosixPath(path).parent == PurePosixPath(_METRICS, "methods")
    }


def _is_here(path: str, values: Any) -> bool:
    """Tell whether the work tree has these metrics: it may be another by now, or elsewhere."""
    # DVC shows no null.
    return Path(path).is_file() and values == {
        key: value
        for key, value in json.loads(Path(path).read_bytes()).items()
        if value is not None
    }
