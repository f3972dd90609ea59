"""Files in `metrics/` as later stages read them: whole, finite, and with what is needed in them.

Those that a later stage reads hold a checksum of themselves; files of former versions have none.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import ErrorDetails

from distillation.base.checksums import CHECKSUM_KEY, check_regular, hash_json
from distillation.base.errors import DistillationError
from distillation.base.json_text import parse_json
from distillation.base.mistakes import shorten


class MetricsFileError(DistillationError):
    """A metrics file is missing, damaged or of a former version."""


class _Shape(BaseModel):
    """Names what is needed; the rest of a file is left as it is."""

    model_config = ConfigDict(strict=True)


class _Epoch(_Shape):
    epoch: int
    terms: dict[str, FiniteFloat]
    validation: dict[str, FiniteFloat] | None
    learning_rate: FiniteFloat


class _Training(_Shape):
    seed: int
    before_acc: FiniteFloat
    before_f1: FiniteFloat
    before_loss: FiniteFloat
    after_acc: FiniteFloat
    after_f1: FiniteFloat
    after_loss: FiniteFloat
    best_acc: FiniteFloat
    best_f1: FiniteFloat
    best_ece: FiniteFloat
    best_top5: FiniteFloat = 0.0  # there with many classes alone
    best_epoch: int
    epochs: int
    validation_acc: FiniteFloat | None
    teacher_outputs: str | None
    history: list[_Epoch] = []


class _Trainings(_Shape):
    seeds: list[_Training] = Field(min_length=1)


class _Costs(_Shape):
    unit: Literal["core", "GPU"]
    seconds: list[Annotated[FiniteFloat, Field(ge=0)]] = Field(min_length=1)


class _Teacher(_Shape):
    model: str
    acc: FiniteFloat
    f1: FiniteFloat
    trained: bool
    checkpoint: str | None


class _Student(_Shape):
    model: str
    acc: FiniteFloat


class _Balance(_Shape):
    majority_class: str
    majority_share: FiniteFloat
    is_notable: bool
    absent_classes: list[str]


class _Balances(_Shape):
    test: _Balance
    validation: _Balance


class _Baseline(_Shape):
    teacher: _Teacher
    student: _Student
    balance: _Balances
    data: str


def read_trainings_file(path: Path) -> dict[str, Any]:
    """Read `metrics/seeds/<method>.json`: its `seeds` are the trainings, at least one.

    Raises:
        MetricsFileError: the file is missing or damaged, or a training lacks something.
    """
    return _check(path, _Trainings)


def read_baseline_file(path: Path) -> dict[str, Any]:
    """Read `metrics/baseline.json`, which `eval_baseline` wrote.

    Raises:
        MetricsFileError: the file is missing or damaged, or lacks something.
    """
    return _check(path, _Baseline)


def read_costs_file(path: Path) -> dict[str, Any]:
    """Read `metrics/costs/<name>.json`: the `seconds` of each training, and their `unit`.

    Raises:
        MetricsFileError: the file is missing or damaged, or lacks something.
    """
    return _check(path, _Costs)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of finite numbers, and compare it with its checksum, where it has one.

    Raises:
        MetricsFileError: the file is missing, damaged, no JSON object, or holds NaN or an infinity.
    """
    try:
        check_regular(path)
        content = parse_json(
            path.read_text(encoding="utf-8"), parse_constant=_refuse, parse_float=_to_finite
        )
    except (OSError, ValueError) as error:
        raise MetricsFileError(
            f"{path}: cannot be read as JSON ({error}); {_repair(path)}"
        ) from error
    if not isinstance(content, dict):
        raise MetricsFileError(
            f"{path}: got {type(content).__name__}; allowed: an object; {_repair(path)}"
        )
    if not _fits(content):
        raise MetricsFileError(f"{path}: does not fit its checksum; {_repair(path)}")
    return content


def _check(path: Path, shape: type[_Shape]) -> dict[str, Any]:
    content = read_object(path)
    try:
        shape.model_validate(content)
    except ValidationError as error:
        first, *others = error.errors()
        more = f" (and {len(others)} more)" if others else ""
        raise MetricsFileError(f"{path}: {_describe(first)}{more}; {_repair(path)}") from error
    return content


def _fits(content: dict[str, Any]) -> bool:
    """Return whether an object fits the checksum in it, which is taken out."""
    expected = content.pop(CHECKSUM_KEY, None)
    if expected is not None:
        return expected == hash_json(content)
    # A damaged name of the entry must not make the file one of a former version.
    texts = (value for value in content.values() if isinstance(value, str))
    return not any(re.fullmatch("[0-9a-f]{64}", text) for text in texts)


def _describe(mistake: ErrorDetails) -> str:
    key = ".".join(map(str, mistake["loc"]))
    if mistake["type"] == "missing":
        return f"{key} is missing"
    return (
        f"{key}: got {shorten(mistake['input'])}; {mistake['msg'].replace('Input should', 'must')}"
    )


def _repair(path: Path) -> str:
    return f"delete it and run its stage again, or get it back by `git checkout -- {path}`"


def _refuse(constant: str) -> float:
    raise ValueError(f"it holds {constant}, which is no number")


def _to_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {text}, which is beyond all numbers")
    return number
