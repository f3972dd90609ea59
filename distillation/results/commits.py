"""Which commit the code of a run is, from what its trainings recorded. Asks no git."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any


def newest_commit(environments: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the newest of the commits whose code trained the methods; None where none is known.

    Args:
        environments: what each method, and the teacher, ran on.
    """
    newest = _newest(environments)
    return None if newest is None else newest["commit"]


def describe_code(environments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say in sentences which commit's code trained the methods, and what it does not hold."""
    newest = _newest(environments)
    if newest is None:
        return ["The commit was not recorded."]
    commit = newest["commit"]
    named = f"{commit[:10]} of {newest['commit_date'][:10]}"
    others = [
        f"{name} ({one['commit'][:10]})" if "commit" in one else f"{name} (not recorded)"
        for name, one in environments.items()
        if one.get("commit") != commit
    ]
    changed = [name for name, one in environments.items() if one.get("uncommitted_changes")]
    sentences = [
        f"Not all was trained by the code of one commit: {named} is the newest, and not that of "
        f"{', '.join(others)}."
        if others
        else f"The code is that of commit {named}."
    ]
    if changed:
        names = ", ".join(changed)
        sentences.append(
            f"The code had changes that no commit holds when these were trained: {names}."
        )
    return sentences


def setup_commands(commit: str | None) -> list[str]:
    """Return the lines for a shell, in a clone, that bring back the code and what it needs."""
    checkout = [] if commit is None else [f"git checkout {commit}"]
    return [*checkout, "make setup", ". .venv/bin/activate"]


def _newest(environments: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    recorded = [one for one in environments.values() if "commit" in one]
    return max(
        recorded,
        key=lambda one: datetime.datetime.fromisoformat(one["commit_date"]),
        default=None,
    )
