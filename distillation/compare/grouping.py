"""Pool runs that are the same but for their seeds, and give every row of the comparison a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from distillation.base.methods import sort_methods
from distillation.compare.parameters import show
from distillation.compare.projects import RowKey, Run
from distillation.compare.records import CompareError, Training

UNKNOWN = "unknown"
"""Stands for the value of a parameter that a run's file does not have, an older one for example."""

PairKey = tuple[int | str, int]
"""The seed of data and teacher, and the training's own. Where the first is not known the source
stands for it, so that nothing is paired with another source's trainings."""


@dataclasses.dataclass
class Row:
    """All trainings of one method with the same parameters."""

    key: RowKey
    run: Run
    """The first of its runs."""
    params: Mapping[str, Any]
    """Those that can matter to the method."""
    label: str = ""
    trainings: dict[PairKey, Training] = dataclasses.field(default_factory=dict)
    sources: dict[PairKey, str] = dataclasses.field(default_factory=dict)
    """The first source of each training."""

    def add(self, run: Run) -> None:
        """Add a run's trainings; one that is there already counts once.

        Raises:
            CompareError: one is there already with other values.
        """
        for training in run.trainings:
            key = (run.source if run.params is None else run.params["seed"], training.seed)
            known = self.trainings.setdefault(key, training)
            source = self.sources.setdefault(key, run.source)
            if difference := known.difference_to(training):
                raise CompareError(
                    f"{run.method}: {source} and {run.source} have the same parameters and seeds "
                    f"(seed {key[0]}, training seed {key[1]}), but {difference}; must be one of "
                    "them, or runs with other seeds"
                )


def group_runs(runs: Sequence[Run]) -> dict[str, list[Row]]:
    """Pool the runs to rows; one table per data set, by what its images are.

    Raises:
        CompareError: two runs are the same in everything but their results.
    """
    tables: dict[tuple[str, str], dict[RowKey, Row]] = {}
    for run in runs:
        rows = tables.setdefault((run.data, (run.params or {}).get("dataset", UNKNOWN)), {})
        key = run.key(run.method)
        rows.setdefault(key, Row(key, run, run.matter(run.method))).add(run)
    names = [data for data, _ in tables]  # an image folder's has its last part alone
    return {
        data if names.count(data) == 1 else f"{data} (dataset: {dataset})": _label(rows.values())
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
        words = [f"{name}={show(row.params.get(name, UNKNOWN))}" for name in differing]
        if row.run.params is None:
            words = [f"(parameters unknown: {row.run.source})"]
        row.label = " ".join([method, *words])
    return sorted(rows, key=lambda row: [_sort_key(row.params.get(name)) for name in differing])


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Return what puts numbers in order, before words."""
    is_number = isinstance(value, (int, float))
    return not is_number, value if is_number else str(value)
