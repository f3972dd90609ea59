"""What every source is turned into: the trainings of one method, with the parameters they had."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from distillation.base.errors import DistillationError
from distillation.compare.parameters import flatten

METRICS = ("after_acc", "best_acc", "after_f1", "best_f1")
"""The test metrics of a training that can be compared."""

_NEEDED = ("seed", *METRICS, "validation_acc")


class CompareError(DistillationError):
    """What was asked to be compared cannot be found, read or compared."""


class NoTrainingsError(CompareError):
    """A folder or revision holds no trainings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """One training, measured on the test split; accuracy in percent, macro-F1 a fraction."""

    seed: int
    after_acc: float
    best_acc: float
    after_f1: float
    best_f1: float
    validation_acc: float | None

    def difference_to(self, other: Training) -> str | None:
        """Name a metric in which two trainings differ, as rounded as metrics files are."""
        for name in (*METRICS, "validation_acc"):
            mine, yours = getattr(self, name), getattr(other, name)
            if _round(name, mine) != _round(name, yours):
                return f"{name} {mine} and {yours}"
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The trainings of one method in one source."""

    source: str
    """Names the source to the user."""
    method: str
    data: str
    """What the images are."""
    params: Mapping[str, Any] | None
    """Flat, as `parameters.flatten` gives them; None where nothing is known of them."""
    trainings: tuple[Training, ...]


def make_run(
    source: str, method: str, content: Mapping[str, Any], *, params: Mapping[str, Any] | None
) -> Run:
    """Check the trainings of one method.

    Args:
        source: where they are from.
        method: the method's name.
        content: `data`, what the images are, and `seeds`, a list with a record for each training.
        params: as they stand in a parameter file; None where they are not known.

    Raises:
        CompareError: something is missing or of the wrong type.
    """
    place = f"{source}: {method}"
    data, records = content.get("data"), content.get("seeds")
    if not isinstance(data, str):
        raise CompareError(f"{place}: got data {data!r}; allowed: a text that says what it is")
    if not isinstance(records, list) or not records:
        raise CompareError(
            f"{place}: got seeds {_short(records)}; allowed: a list of records, one a training"
        )
    flat = None if params is None else flatten(params)
    if flat is not None and not _is_int(flat.get("seed")):
        raise CompareError(
            f"{source}: parameters: got seed {flat.get('seed')!r}; allowed: a whole number"
        )
    trainings = tuple(_training(place, record) for record in records)
    return Run(source=source, method=method, data=data, params=flat, trainings=trainings)


def parse_json(source: str, text: bytes) -> Any:
    """Read JSON; raises `CompareError`, which names the source, for anything else."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise CompareError(
            f"{source}: not JSON ({error}); allowed: a results file of python -m distillation "
            "--results-path, or what dvc exp show --json prints"
        ) from error


def _training(place: str, record: Any) -> Training:
    if not isinstance(record, dict):
        raise CompareError(f"{place}: got the record {_short(record)}; allowed: a mapping")
    if missing := [key for key in _NEEDED if key not in record]:
        raise CompareError(
            f"{place}: a record lacks {', '.join(missing)}; found: "
            f"{', '.join(map(str, record)) or 'nothing'}; allowed: records with "
            f"{', '.join(_NEEDED)}"
        )
    if not _is_int(record["seed"]):
        raise CompareError(f"{place}: got seed {record['seed']!r}; allowed: a whole number")
    for key in (*METRICS, "validation_acc"):
        value = record[key]
        if not _is_number(value) and not (key == "validation_acc" and value is None):
            raise CompareError(f"{place}: got {key} {value!r}; allowed: a number")
    return Training(**{key: record[key] for key in _NEEDED})


def _round(name: str, value: float | None) -> float | None:
    return None if value is None else round(value, 6 if name.endswith("f1") else 4)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
