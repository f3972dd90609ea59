"""Which parameters can matter to a method, and when two values of one are the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distillation.base.methods import CONTROL

UNKNOWN = "unknown"
"""Stands for the value of a parameter that a run's file does not have, an older one for example."""

SEED_PARAMETERS = ("seed", "seeds")
"""Runs that differ in nothing else are the same run again."""

_AFTERWARDS = ("export_method",)
"""What is decided when all methods are trained."""

WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    # It learns by labels alone, the cross-entropy has weight 1, and it never meets the teacher.
    CONTROL: (
        "teacher",
        "teacher_checkpoint",
        "teacher_epochs",
        "teacher_batch_size",
        "teacher_learning_rate",
        "teacher_weight_decay",
        "teacher_cache_gb",
        "label_weight",
        "alpha",
        "temperature",
        "standardize_logits",
        "feature_weight",
        "method_weights",
        "methods",
    ),
    # It has no feature term.
    "exp1": ("feature_weight", "method_weights", "methods"),
    # Their feature term is weighted by feature_weight.
    "exp2": ("method_weights", "methods"),
    "exp3": ("method_weights", "methods"),
}
"""What cannot change a method. Every other parameter is taken to matter, unknown ones too."""

_OTHER_METHODS = ("feature_weight", "method_weights", "methods")
"""What cannot change a further method, but for its own entry in `method_weights`; `methods` says
which of them run."""

_TEXTS = ("dataset", "teacher", "student", "teacher_checkpoint", "student_checkpoint")
_WORDS = ("compile", "precision")


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give parameters by dotted name, equal ones with equal and hashable values.

    YAML has several spellings of one value: `2e-3` is a text to PyYAML and a number to DVC, and
    `compile: true` is a word.
    """
    flat: dict[str, Any] = {}
    for name, value in params.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = _same(key, value)
    return flat


def relevant(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Give the flat parameters that can matter to a method, seeds left out."""
    without_effect = (*SEED_PARAMETERS, *_AFTERWARDS, *WITHOUT_EFFECT.get(method, _OTHER_METHODS))
    return {
        name: value
        for name, value in params.items()
        if name.partition(".")[0] not in without_effect
        or (method not in WITHOUT_EFFECT and name == f"method_weights.{method}")
    }


def show(value: Any) -> str:
    """Give a value as a parameter file has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(show, value))}]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _same(key: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_same(key, element) for element in value)
    if isinstance(value, bool) and key in _WORDS:
        return str(value).lower()
    if isinstance(value, str) and key not in _TEXTS:
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
