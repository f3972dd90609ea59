"""Pool runs that are the same but for their seeds, and give every row of the comparison a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from distillation.base.methods import sort_methods
from distillation.compare.parameters import show
from distillation.compare.projects import RowKey, Run
from distillation.compare.records import Training

UNKNOWN = "unknown"
"""Stands for the value of a parameter that a run's file does not have, an older one for example."""

PairKey = tuple[int | str, int]
"""The seed of data and teacher, and the training's own. Where the first is not known the source
stands for it, so that nothing is paired with another source's trainings."""


@dataclasses.dataclass
class Row:
    """All trainings of one method with the same parameters; those of an equal seed are equal."""

    key: RowKey
    run: Run
    """The first of its runs."""
    params: Mapping[str, Any]
    """Those that can matter to the method."""
    label: str = ""
    trainings: dict[PairKey, Training] = dataclasses.field(default_factory=dict)
    sources: dict[PairKey, str] = dataclasses.field(default_factory=dict)
    """The first source of each training."""
    teachers: dict[tuple[int | str, str], tuple[str, str]] = dataclasses.field(default_factory=dict)
    """What tells the teacher of each seed from others, by what that is, and its first source."""

    def add(self, run: Run) -> None:
        """Add a run's trainings; one that is there already counts once."""
        for key, training in _by_pair(run).items():
            self.trainings.setdefault(key, training)
            self.sources.setdefault(key, run.source)
        for measure, value in run.teacher.items():
            self.teachers.setdefault((_seed_of(run), measure), (value, run.source))

    def find_clash(self, run: Run) -> str | None:
        """Say what of a run is here already and is another: a training, the teacher; or None."""
        for key, training in _by_pair(run).items():
            known = self.trainings.get(key, training)
            if difference := known.difference_to(training):
                return (
                    f"{run.method}: {self.sources[key]} and {run.source} have the same parameters "
                    f"and seeds (seed {key[0]}, training seed {key[1]}), but {difference}"
                )
        for measure, value in run.teacher.items():
            other, source = self.teachers.get((_seed_of(run), measure), (value, run.source))
            if other != value:
                return (
                    f"{run.method}: {source} and {run.source} have the same parameters but another "
                    f"teacher ({measure} {other} and {value})"
                )
        return None


def _seed_of(run: Run) -> int | str:
    return run.source if run.params is None else run.params["seed"]


def _by_pair(run: Run) -> dict[PairKey, Training]:
    return {(_seed_of(run), training.seed): training for training in run.trainings}


def group_runs(runs: Sequence[Run], notes: list[str]) -> dict[str, list[Row]]:
    """Pool the runs to rows; one table per data set, by what its images are.

    Args:
        runs: in the order in which their sources were named.
        notes: gets a sentence on each run that is like another but for its results, as after a
            change of the code, or on another machine. Such runs have a row each.
    """
    tables: dict[tuple[str, str], list[Row]] = {}
    for run in runs:
        rows = tables.setdefault((run.data, (run.params or {}).get("dataset", UNKNOWN)), [])
        key = run.key(run.method)
        clashes = [(row, row.find_clash(run)) for row in rows if row.key == key]
        row = next((row for row, clash in clashes if clash is None), None)
        if row is None:
            row = Row(key, run, run.matter(run.method))
            rows.append(row)
            notes += [f"{clash}: they are rows of their own." for _, clash in clashes[:1]]
        row.add(run)
    names = [data for data, _ in tables]  # an image folder's has its last part alone
    return {
        data if names.count(data) == 1 else f"{data} (dataset: {dataset})": _label(rows)
        for (data, dataset), rows in tables.items()
    }


def _label(rows: Collection[Row]) -> list[Row]:
    """Give every row its label, and put them in order: by method, then by what tells them apart."""
    methods = sort_methods(dict.fromkeys(row.run.method for row in rows))
    return [
        row
        for method in methods
        for row in _label_method(method, [row for row in rows if row.run.method == method])
    ]


def _label_method(method: str, rows: Sequence[Row]) -> list[Row]:
    known = [row.params for row in rows if row.run.params is not None]
    names = dict.fromkeys(name for params in known for name in params)
    differing = [n for n in names if len({params.get(n, UNKNOWN) for params in known}) > 1]
    for row in rows:
        words = [
            f"{name}={show(row.params.get(name, UNKNOWN))}"
            for name in differing
            if name in row.params or not _has_others_of(name, row.params)
        ]
        if row.run.params is None:
            words = [f"(parameters unknown: {row.run.source})"]
        if sum(other.key == row.key for other in rows) > 1:
            words.append(f"({row.run.source})")
        row.label = " ".join([method, *words])
    return sorted(rows, key=lambda row: [_sort_key(row.params.get(name)) for name in differing])


def _has_others_of(name: str, params: Mapping[str, Any]) -> bool:
    """Return whether options are there, of which this one was not given or which are none."""
    group = name.partition(".")[0]
    return any(other.partition(".")[0] == group for other in params)


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Return what puts numbers in order, before words."""
    is_number = isinstance(value, (int, float))
    return not is_number, value if is_number else str(value)
