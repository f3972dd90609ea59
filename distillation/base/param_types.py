"""The types of parameters: what each accepts, and the words for it where a type does not say it.

The bounds are what a machine can bear, not what makes sense.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from distillation.base.methods import further_methods
from distillation.base.yaml_text import PLAIN_NUMBER

MAX_SEED = 2**31 - 1
MAX_EPOCHS = 100_000
MAX_BATCH_SIZE = 1_000_000
MAX_NUM_VIEWS = 10_000
MAX_NUMBER = 1_000_000_000
"""The largest weight or rate."""


@dataclasses.dataclass(frozen=True)
class Section:
    """Marks the first parameter of a section of the help and of `params.yaml`."""

    title: str


def _to_tuple(value: Any) -> Any:
    """Take one value as a list of it: `-S seeds=3`."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _to_word(value: Any) -> Any:
    """Take a boolean as its word: YAML makes booleans of the words true and false."""
    return str(value).lower() if isinstance(value, bool) else value


def _to_number(value: Any) -> Any:
    """Take a text like 1e-3 as a number: readers of YAML 1.1 make a text of it."""
    return float(value) if isinstance(value, str) and PLAIN_NUMBER.match(value) else value


def _are_different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("not different")
    return values


def _is_not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("empty")
    return values


def _is_range(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError("no range")
    return values


def _is_further_method(name: str) -> str:
    if name not in further_methods():
        raise ValueError("no further method")
    return name


def _check_option(value: Any) -> Any:
    """Check a keyword argument of an optimizer, which itself says more about it."""
    if isinstance(value, list):
        return [_check_option(one) for one in value]
    value = _to_number(value)
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, (str, int, float, type(None))) or not is_finite:
        raise ValueError("no option")
    return value


def _allowed(words: str) -> Any:
    """Set the words for what a field allows, where its type does not say it all."""
    return Field(json_schema_extra={"allowed": words})


_NUMBER = BeforeValidator(_to_number)

Text = Annotated[str, Field(pattern=r"\S"), _allowed("a text that is not empty")]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Seeds = Annotated[
    tuple[Seed, ...],
    BeforeValidator(_to_tuple),
    AfterValidator(_are_different),
    AfterValidator(_is_not_empty),
    _allowed(f"a list of different whole numbers from 0 to {MAX_SEED:,}, at least one of them"),
]
EpochCounts = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MAX_EPOCHS)], ...],
    BeforeValidator(_to_tuple),
    AfterValidator(_are_different),
    _allowed(f"a list of different whole numbers from 1 to {MAX_EPOCHS:,}"),
]
StemStride = Annotated[int, Field(ge=1, le=8)]
Epochs = Annotated[int, Field(ge=0, le=MAX_EPOCHS)]
BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)]
Weight = Annotated[float, Field(ge=0, le=MAX_NUMBER), _NUMBER]
Fraction = Annotated[float, Field(gt=0, le=1), _NUMBER]
Positive = Annotated[float, Field(gt=0, le=MAX_NUMBER), _NUMBER]
UpToHalf = Annotated[float, Field(gt=0, le=0.5), _NUMBER]
BelowOne = Annotated[float, Field(ge=0, lt=1), _NUMBER]
Share = Annotated[float, Field(ge=0, le=1), _NUMBER]
Concentration = Annotated[float, Field(ge=0, le=100), _NUMBER]
AreaRange = Annotated[
    tuple[Fraction, ...],
    BeforeValidator(_to_tuple),
    AfterValidator(_is_range),
    _allowed("a list [smallest, largest], both above 0 and at most 1"),
]
AspectRange = Annotated[
    tuple[Annotated[float, Field(ge=0.1, le=10), _NUMBER], ...],
    BeforeValidator(_to_tuple),
    AfterValidator(_is_range),
    _allowed("a list [smallest, largest], both at least 0.1 and at most 10"),
]
Augmentation = Literal["crop", "resized_crop"]
Interpolation = Literal["bilinear", "bicubic"]
Precision = Literal["auto", "fp32", "bf16"]
Compile = Annotated[Literal["auto", "true", "false"], BeforeValidator(_to_word)]
FurtherMethod = Annotated[str, AfterValidator(_is_further_method)]
Methods = Annotated[
    tuple[FurtherMethod, ...],
    BeforeValidator(_to_tuple),
    AfterValidator(_are_different),
    _allowed(f"a list, empty or of different names among {', '.join(further_methods())}"),
]
MethodWeights = Annotated[
    dict[FurtherMethod, Weight],
    _allowed(f"a mapping of methods ({', '.join(further_methods())}) to numbers of at least 0"),
]
OptimizerOption = Annotated[
    Any,
    AfterValidator(_check_option),
    _allowed("a finite number, a text, true, false, null or a list of these"),
]
OptimizerOptions = Annotated[
    dict[str, OptimizerOption], _allowed("a mapping of keyword arguments to values")
]
