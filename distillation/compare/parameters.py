"""Parameters by dotted name, with one value for each of YAML's spellings of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_WORDS = ("compile", "precision")


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return parameters by dotted name, equal ones with equal and hashable values.

    YAML has several spellings of one value: `2e-3` is a text to PyYAML and a number to DVC,
    `compile: true` is a word, and options that are `{}` are none, as `null`.
    """
    flat: dict[str, Any] = {}
    for name, value in params.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{key}.") or {key: None}
        else:
            flat[key] = str(value).lower() if key in _WORDS else _normalize(value)
    return flat


def show(value: Any) -> str:
    """Return a value as a parameter file has it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _normalize(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_normalize, value))
    if value is None or isinstance(value, bool):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(number):
        return str(value)
    return int(number) if number.is_integer() else number
