"""Put into words what a pydantic model allows, and what is wrong with the values it refused.

Every mistake is one line that names the key, the value and what is allowed. Which keys there are is
`params`' business.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_KINDS = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_ERROR_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_LONGEST_VALUE = 60
_MOST_UNKNOWN = 10


def describe(model: type[BaseModel], name: str) -> str:
    """Return in words which values a field accepts; `name` may be `field.key` of a mapping."""
    field, _, key = name.partition(".")
    schema = _schemas(model)[field]
    choices = schema.get("anyOf", [schema])
    if key:
        choices = [choices[0]["additionalProperties"]]
    return ", or ".join(map(_describe_one, choices))


@functools.cache
def _schemas(model: type[BaseModel]) -> Mapping[str, Any]:
    return model.model_json_schema()["properties"]


def _describe_one(schema: Mapping[str, Any]) -> str:
    if "allowed" in schema:  # said by the field itself
        return schema["allowed"]
    if "enum" in schema:
        *words, last = schema["enum"]
        return f"{', '.join(words)} or {last}"
    if schema["type"] not in _KINDS:
        return "null"
    bounds = [f"{word} {_number(schema[key])}" for key, word in _BOUNDS.items() if key in schema]
    return ", ".join(filter(None, [_KINDS[schema["type"]], " and ".join(bounds)]))


def _number(value: float) -> str:
    return f"{int(value) if value == int(value) else value:,}"


def explain(
    error: ValidationError, model: type[BaseModel], values: Mapping[Any, Any], source: str
) -> str:
    """Return all that is wrong, one mistake per line.

    Args:
        error: what pydantic raised.
        model: the model that refused the values.
        values: the values, by key.
        source: where the values come from, for keys that are missing or unknown.
    """
    unknown, missing = [], []
    wrong: dict[tuple[str, ...], ErrorDetails] = {}
    for detail in error.errors(include_url=False):
        key, *_ = detail["loc"] or (None,)
        if detail["type"] in ("extra_forbidden", "invalid_key"):
            unknown.append(key)
        elif detail["type"] == "missing":
            missing.append(str(key))
        else:
            # Without the places in lists: a list is one mistake, whatever number of items is wrong.
            wrong.setdefault(tuple(part for part in detail["loc"] if isinstance(part, str)), detail)
    lines = [
        f"{source}: unknown parameter {shorten(key)} = {shorten(values.get(key))}; "
        f"{_suggest(key, model)}"
        for key in unknown[:_MOST_UNKNOWN]
    ]
    if len(unknown) > _MOST_UNKNOWN:
        lines.append(f"{source}: {len(unknown) - _MOST_UNKNOWN} more unknown parameters")
    if missing:
        lines.append(f"{source}: missing parameter {', '.join(missing)}")
    lines += [_explain_value(detail, model, values) for detail in wrong.values()]
    return "\n".join(lines)


def shorten(value: Any) -> str:
    """Return a value as one short line."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    try:
        text = repr(value)
    except ValueError:  # python writes no whole number of more than 4,300 digits
        text = "a whole number of thousands of digits"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}… (shortened)"


def _suggest(key: Any, model: type[BaseModel]) -> str:
    near = difflib.get_close_matches(str(key)[:_LONGEST_VALUE], model.model_fields, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "remove it"


def _explain_value(detail: ErrorDetails, model: type[BaseModel], values: Mapping[Any, Any]) -> str:
    if not detail["loc"]:
        return str(detail["ctx"]["error"])  # a rule between fields has its own words
    field, *inner = detail["loc"]
    name, value = str(field), values[field]
    if inner and inner[-1] == "[key]":
        value = detail["input"]
    elif inner and isinstance(inner[0], str):  # a value of a mapping; items of lists have numbers
        name, value = f"{field}.{inner[0]}", detail["input"]
    allowed = describe(model, name)
    bounds = [(_ERROR_BOUNDS[k], v) for k, v in detail.get("ctx", {}).items() if k in _ERROR_BOUNDS]
    if bounds and value is detail["input"]:
        allowed = " and ".join(f"{word} {_number(limit)}" for word, limit in bounds)
    if detail["type"] in ("int_type", "float_type") and isinstance(detail["input"], str):
        allowed += " (written as 10, 0.5 or 1e-3: no quotes, no leading 0)"
    return f"{name}: got {shorten(value)}; must be {allowed}"
