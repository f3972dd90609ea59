"""Pool runs that are the same but for their seeds, and give every row of the comparison a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from distillation.base.methods import CONTROL, sort_methods
from distillation.compare.parameters import UNKNOWN, relevant, show
from distillation.compare.runs import CompareError, Run, Training

PairKey = tuple[int | str, int]
"""The seed of data and teacher, and the training's own. Where the first is not known, the source
stands for it, so that nothing is paired with another source's trainings."""


@dataclasses.dataclass(kw_only=True)
class Row:
    """All trainings of one method with the same parameters."""

    method: str
    params: Mapping[str, Any] | None
    """What can matter to the method; None where it is not known."""
    source: str | None
    """The only source, where the parameters are not known; else None."""
    label: str = ""
    trainings: dict[PairKey, Training] = dataclasses.field(default_factory=dict)
    sources: dict[PairKey, str] = dataclasses.field(default_factory=dict)
    """Where each training was first found."""

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
                    f"{self.method}: {source} and {run.source} have the same parameters and seeds "
                    f"(seed {key[0]}, training seed {key[1]}), but {difference}; allowed: one of "
                    "them, or runs with other seeds"
                )

    def controls_params(self) -> Mapping[str, Any] | None:
        """Give the parameters of the control that belongs to this row."""
        return None if self.params is None else relevant(CONTROL, self.params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Rows that can be compared: those of one data set."""

    data: str
    """What the images are, different for every table."""
    rows: Sequence[Row]


def group_runs(runs: Sequence[Run]) -> list[Table]:
    """Pool the runs to rows and the rows to one table a data set.

    Raises:
        CompareError: two runs are the same in everything but their results.
    """
    tables: dict[tuple[str, str], dict[Any, Row]] = {}
    for run in runs:
        dataset = UNKNOWN if run.params is None else str(run.params.get("dataset", UNKNOWN))
        rows = tables.setdefault((run.data, dataset), {})
        params = None if run.params is None else relevant(run.method, run.params)
        source = run.source if params is None else None
        key = (run.method, source, None if params is None else frozenset(params.items()))
        row = rows.setdefault(key, Row(method=run.method, params=params, source=source))
        row.add(run)
    data = [name for name, _ in tables]  # an image folder's has its last part alone
    return [
        Table(
            data=name if data.count(name) == 1 else f"{name} (dataset: {dataset})",
            rows=_name_rows(list(rows.values())),
        )
        for (name, dataset), rows in tables.items()
    ]


def _name_rows(rows: Sequence[Row]) -> list[Row]:
    """Give every row its label, and put them in order: by method, then by what tells them apart."""
    named = []
    for method in sort_methods(dict.fromkeys(row.method for row in rows)):
        of_method = [row for row in rows if row.method == method]
        differing = _differing([row.params for row in of_method if row.params is not None])
        for row in of_method:
            row.label = " ".join([method, *_differences(row, differing)])
        named += sorted(of_method, key=lambda row: _order(row, differing))
    return named


def _differing(params: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for values in params for name in values)
    return [name for name in names if len({values.get(name, UNKNOWN) for values in params}) > 1]


def _differences(row: Row, differing: Sequence[str]) -> list[str]:
    if row.params is None:
        return [f"(parameters unknown: {row.source})"]
    return [f"{name}={show(row.params.get(name, UNKNOWN))}" for name in differing]


def _order(row: Row, differing: Sequence[str]) -> list[tuple[bool, float, str]]:
    """Give what rows of one method are sorted by: numbers by value, before words."""
    values = [row.source] if row.params is None else [row.params.get(name) for name in differing]
    return [
        (False, value, "") if isinstance(value, (int, float)) else (True, 0.0, str(value))
        for value in values
    ]
