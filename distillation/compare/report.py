"""What is said of each row: means, spread, its difference to a reference, and a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from distillation.base.methods import CONTROL
from distillation.compare.grouping import Row, Table
from distillation.compare.runs import METRICS, CompareError
from distillation.results.intervals import Difference, deviation, mean, paired_difference

AHEAD, BEHIND, NOT_SEPARATED, ONE_SEED = "ahead", "behind", "not separated", "one seed"
REFERENCE = "reference"

_NOISE_POINTS = 0.5
_MANY_COMPARISONS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One row with its numbers."""

    label: str
    method: str
    n: int
    means: dict[str, float]
    """By metric, over the trainings."""
    deviations: dict[str, float | None]
    validation_acc: float | None
    """None where a training had no validation."""
    reference: str | None
    """The label of what the row is compared with; None where there is nothing."""
    difference: Difference | None
    """None for the reference itself, and where no pair of trainings has the same seeds."""
    verdict: str
    """Empty where there is no difference."""
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A table's lines and the sentences below it."""

    data: str
    metric: str
    lines: Sequence[Line]
    remarks: Sequence[str]


def make_reports(tables: Sequence[Table], *, metric: str, reference: str | None) -> list[Report]:
    """Compare every row with its reference.

    Args:
        tables: rows that can be compared.
        metric: which of `METRICS` differences are taken in.
        reference: a row's label; None: to each row, the control of its recipe.

    Raises:
        CompareError: no row has this label.
    """
    labels = {row.label: None for table in tables for row in table.rows}
    if reference is not None and reference not in labels:
        raise CompareError(f"--reference: got {reference!r}; allowed: {', '.join(labels)}")
    reports = []
    for table in tables:
        lines = [
            _make_line(row, _find_reference(row, table, reference), metric) for row in table.rows
        ]
        reports.append(
            Report(
                data=table.data,
                metric=metric,
                lines=lines,
                remarks=_remarks(lines, metric, reference),
            )
        )
    return reports


def _find_reference(row: Row, table: Table, label: str | None) -> Row | None:
    if label is not None:
        return next((other for other in table.rows if other.label == label), None)
    wanted = (CONTROL, row.source, row.controls_params())
    return next(
        (other for other in table.rows if (other.method, other.source, other.params) == wanted),
        None,
    )


def _make_line(row: Row, reference: Row | None, metric: str) -> Line:
    trainings = list(row.trainings.values())
    values = {name: [getattr(training, name) for training in trainings] for name in METRICS}
    validation = [t.validation_acc for t in trainings if t.validation_acc is not None]
    difference = None if reference in (None, row) else _difference(row, reference, metric)
    return Line(
        label=row.label,
        method=row.method,
        n=len(trainings),
        means={name: mean(of_name) for name, of_name in values.items()},
        deviations={name: deviation(of_name) for name, of_name in values.items()},
        validation_acc=mean(validation) if len(validation) == len(trainings) else None,
        reference=None if reference is None else reference.label,
        difference=difference,
        verdict=REFERENCE if reference is row else _verdict(difference),
        sources=tuple(dict.fromkeys(row.sources.values())),
    )


def _difference(row: Row, reference: Row, metric: str) -> Difference | None:
    """Pair the trainings that have the same seeds."""
    shared = sorted(row.trainings.keys() & reference.trainings.keys())
    return paired_difference(
        {i: getattr(row.trainings[key], metric) for i, key in enumerate(shared)},
        {i: getattr(reference.trainings[key], metric) for i, key in enumerate(shared)},
    )


def _verdict(difference: Difference | None) -> str:
    if difference is None:
        return ""
    if difference.n == 1:
        return ONE_SEED
    if not difference.is_separated:
        return NOT_SEPARATED
    return AHEAD if difference.mean > 0 else BEHIND


def _remarks(lines: Sequence[Line], metric: str, reference: str | None) -> list[str]:
    name = _reference_name(lines, reference)
    said = _missing(lines, reference)
    for verdict, start in (
        (AHEAD, f"Ahead of {name}"),
        (BEHIND, f"Behind {name}"),
        (NOT_SEPARATED, f"Not separated from {name}"),
        (ONE_SEED, f"With one pair of trainings, against {name}"),
    ):
        found = [_describe(line, metric) for line in lines if line.verdict == verdict]
        if found:
            said.append(f"{start} in {metric}: {'; '.join(found)}.")
    said += [
        f"{line.label}: {line.difference.n} of its {line.n} trainings have a partner with the same "
        f"seeds in {line.reference}; the difference is over these."
        for line in lines
        if line.difference is not None and line.difference.n < line.n
    ]
    num_intervals = sum(line.difference is not None and line.difference.n > 1 for line in lines)
    if num_intervals >= _MANY_COMPARISONS:
        said.append(
            f"Each of the {num_intervals} intervals is for one comparison, not corrected for their "
            "number: that at least one leaves out 0 by luck has a chance above 5 %."
        )
    if any(line.n == 1 for line in lines):
        said.append(
            f"One seed: a difference under {_NOISE_POINTS} points proves nothing; run more with "
            "-S 'seeds=[0,1,2]'."
        )
    return said


def _missing(lines: Sequence[Line], reference: str | None) -> list[str]:
    """Say which rows have no difference, and why."""
    said = []
    alone = [line.label for line in lines if line.reference is None]
    if alone and reference is not None:
        said.append(f"There is no {reference} on this data, so there are no differences.")
    elif alone:
        said.append(
            f"No control of the same recipe was found for {', '.join(alone)}: without it a number "
            "does not say what distillation adds."
        )
    return said + [
        f"{line.label} and {line.reference} have no seeds in common, so there is no difference."
        for line in lines
        if line.reference is not None and line.verdict == ""
    ]


def _reference_name(lines: Sequence[Line], reference: str | None) -> str:
    used = {line.reference for line in lines if line.reference is not None}
    if reference is not None or len(used) == 1:
        return reference or f"the {used.pop()}"
    return "the control of the same recipe"


def _describe(line: Line, metric: str) -> str:
    assert line.difference is not None
    is_accuracy = metric.endswith("acc")
    points = " points" if is_accuracy else ""
    return f"{line.label} {line.difference.to_text(digits=2 if is_accuracy else 4)}{points}"
