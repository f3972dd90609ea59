"""What is reported of each row: means, spread, its difference to a reference, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillation.base.methods import CONTROL
from distillation.compare.grouping import Row
from distillation.compare.records import CompareError
from distillation.results.intervals import (
    CONFIDENCE,
    NOISE_POINTS,
    Difference,
    correct_by_holm,
    deviation,
    mean,
    p_text,
    paired_difference,
)

AHEAD, BEHIND, NOT_SEPARATED, ONE_SEED = "ahead", "behind", "not separated", "one seed"
REFERENCE = "reference"

Line = dict[str, Any]
"""A row in numbers: the columns of CSV. `reference` is the label of what it is compared with, None
where there is nothing; without pairs of trainings with the same seeds `difference` is None."""

Table = dict[str, Any]
"""The lines of a data set and the sentences below them: `data`, `metric`, `rows`, `remarks`."""


def make_tables(
    groups: Mapping[str, Sequence[Row]], *, metric: str, reference: str | None
) -> list[Table]:
    """Compare every row with its reference.

    Args:
        groups: rows that can be compared, by their data.
        metric: which of `METRICS` differences are taken in.
        reference: a row's label; None: to each row, the control of its recipe.

    Raises:
        CompareError: no row has this label.
    """
    labels = {row.label: None for rows in groups.values() for row in rows}
    if reference is not None and reference not in labels:
        raise CompareError(f"--reference: got {reference!r}; must be one of {', '.join(labels)}")
    tables = []
    for data, rows in groups.items():
        references = [_find_reference(row, rows, reference) for row in rows]
        differences = [
            None if other in (None, row) else _difference(row, other, metric)
            for row, other in zip(rows, references, strict=True)
        ]
        p_values = correct_by_holm(
            {str(i): found.p_value for i, found in enumerate(differences) if found is not None}
        )
        lines = [
            _make_line(row, other, found, p_values.get(str(i)), metric=metric, data=data)
            for i, (row, other, found) in enumerate(zip(rows, references, differences, strict=True))
        ]
        remarks = [*_missing(lines, reference), *_remarks(lines, metric, reference)]
        tables.append({"data": data, "metric": metric, "rows": lines, "remarks": remarks})
    return tables


def _find_reference(row: Row, rows: Sequence[Row], label: str | None) -> Row | None:
    """Return the row with a label, or the control: of several that of a common source."""
    control = row.run.key(CONTROL)
    found = [r for r in rows if r.label == label or (label is None and r.key == control)]
    sources = set(row.sources.values())
    common = (other for other in found if not sources.isdisjoint(other.sources.values()))
    return next(common, next(iter(found), None))


def _make_line(
    row: Row,
    reference: Row | None,
    difference: Difference | None,
    p: float | None,
    *,
    metric: str,
    data: str,
) -> Line:
    trainings = list(row.trainings.values())
    line: Line = {"label": row.label, "method": row.run.method, "n": len(trainings)}
    for name in ("after_acc", "after_f1", "best_acc", "best_f1"):
        values = [getattr(training, name) for training in trainings]
        line |= {name: mean(values), f"{name}_std": deviation(values)}
    validation = [t.validation_acc for t in trainings if t.validation_acc is not None]
    return line | {
        "validation_acc": mean(validation) if len(validation) == len(trainings) else None,
        "metric": metric,
        "reference": None if reference is None else reference.label,
        "difference": None if difference is None else difference.mean,
        "difference_low": None if difference is None else difference.low,
        "difference_high": None if difference is None else difference.high,
        "p": p,
        "pairs": 0 if difference is None else difference.n,
        "verdict": REFERENCE if reference is row else _verdict(difference, p, metric),
        "data": data,
        "sources": list(dict.fromkeys(row.sources.values())),
    }


def _difference(row: Row, reference: Row, metric: str) -> Difference | None:
    """Pair the trainings that have the same seeds."""
    shared = sorted(row.trainings.keys() & reference.trainings.keys())
    values, others = (
        {i: getattr(side.trainings[key], metric) for i, key in enumerate(shared)}
        for side in (row, reference)
    )
    return paired_difference(values, others)


def _verdict(difference: Difference | None, p: float | None, metric: str) -> str | None:
    """Return what a difference shows; p is corrected for all that the table compares.

    Without p, as where it is the same for each seed, it must be more than noise.
    """
    if difference is None:
        return None
    if difference.n == 1:
        return ONE_SEED
    is_shown = abs(difference.mean) >= _noise(metric) if p is None else p < 1 - CONFIDENCE
    if not is_shown:
        return NOT_SEPARATED
    return AHEAD if difference.mean > 0 else BEHIND


def _noise(metric: str) -> float:
    """Return the difference under which one seed proves nothing, in the metric's unit."""
    return NOISE_POINTS if metric.endswith("acc") else NOISE_POINTS / 100


def _missing(lines: Sequence[Line], reference: str | None) -> list[str]:
    """Say which rows have no difference, and why."""
    remarks = []
    alone = ", ".join(line["label"] for line in lines if line["reference"] is None)
    if alone and reference is not None:
        remarks.append(f"There is no {reference} on this data, so there are no differences.")
    elif alone:
        remarks.append(
            f"No control of the same recipe was found for {alone}: without it a number does not "
            "say what distillation adds."
        )
    return remarks + [
        f"{line['label']} and {line['reference']} have no seeds in common, so there is no "
        "difference."
        for line in lines
        if line["reference"] is not None and line["verdict"] is None
    ]


def _remarks(lines: Sequence[Line], metric: str, reference: str | None) -> list[str]:
    """Say who is ahead, who behind, and how sure that is."""
    used = {line["reference"] for line in lines} - {None}
    control = f"the {used.pop()}" if len(used) == 1 else "the control of the same recipe"
    name = reference or control
    remarks = []
    for verdict, start in (
        (AHEAD, f"Ahead of {name}"),
        (BEHIND, f"Behind {name}"),
        (NOT_SEPARATED, f"Not separated from {name}"),
        (ONE_SEED, f"With one pair of trainings, against {name}"),
    ):
        if differences := [_describe(line) for line in lines if line["verdict"] == verdict]:
            remarks.append(f"{start} in {metric}: {'; '.join(differences)}.")
    remarks += [
        f"{line['label']}: {line['pairs']} of its {line['n']} trainings have a partner with the "
        f"same seeds in {line['reference']}; the difference is over these."
        for line in lines
        if 0 < line["pairs"] < line["n"]
    ]
    num_compared = sum(line["p"] is not None for line in lines)
    if num_compared > 1:
        remarks.append(
            f"p is corrected for the {num_compared} comparisons of the table (Holm), and who is "
            "ahead goes by it; an interval is that of its comparison alone."
        )
    if any(line["n"] == 1 for line in lines):
        remarks.append(
            f"One seed: a difference under {_noise(metric):g}"
            f"{' points' if metric.endswith('acc') else ''} proves nothing; run more, as "
            "seeds=[0,1,2]."
        )
    return remarks


def _describe(line: Line) -> str:
    keys = {"mean": "difference", "low": "difference_low", "high": "difference_high", "n": "pairs"}
    difference = Difference(**{name: line[key] for name, key in keys.items()})
    p = "" if line["p"] is None else f", {p_text(line['p'])}"
    if line["metric"].endswith("acc"):
        return f"{line['label']} {difference.to_text(digits=2)} points{p}"
    return f"{line['label']} {difference.to_text(digits=4)}{p}"
