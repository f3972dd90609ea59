"""What the numbers were made with, and the command that makes them again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.-]*")
_NO_TEXT = re.compile("true|false|null|inf|nan", re.IGNORECASE)
_BEFORE_QUOTE = re.compile(r'(\\*)("|$)')
_PER_LINE = 78


def show_value(value: Any) -> str:
    """Return a parameter's value as `params.yaml` has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Sequence):
        return "[" + ",".join(map(show_value, value)) + "]"
    return str(value)


def flatten(parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every parameter with its value as text; an entry of a mapping as `key.entry`."""
    flat = []
    for key, value in parameters.items():
        if isinstance(value, Mapping) and value:
            flat += [(f"{key}.{name}", show_value(entry)) for name, entry in value.items()]
        else:
            flat.append((key, "{}" if isinstance(value, Mapping) else show_value(value)))
    return flat


def reproduce_command(
    parameters: Mapping[str, Any], environments: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return the command that repeats the run, whatever the work tree's `params.yaml` says.

    Device and number of threads, which decide the rounding, stand in front where all methods had
    the same.
    """
    words = []
    devices = {str(one["device"]) for one in environments.values() if "device" in one}
    if len(devices) == 1:
        device = devices.pop()
        words.append(f"DISTILLATION_DEVICE={device if device in ('cpu', 'mps') else 'cuda'}")
    threads = {int(one["threads"]) for one in environments.values() if "threads" in one}
    if len(threads) == 1:
        words.append(f"OMP_NUM_THREADS={threads.pop()}")
    words += ["dvc", "exp", "run"]
    for key, value in parameters.items():
        if isinstance(value, Mapping):  # null first: entries of the work tree's would stay
            words.append(f"-S {key}=null")
        words.append(f"-S {shlex.quote(f'{key}={_override(value)}')}")
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > _PER_LINE:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return " \\\n".join(lines)


def _override(value: Any) -> str:
    """Return a value in Hydra's grammar, which `dvc exp run -S` reads."""
    if isinstance(value, Mapping):
        entries = (f"{_override(key)}: {_override(entry)}" for key, entry in value.items())
        return "{" + ", ".join(entries) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_override, value)) + "]"
    if not isinstance(value, str) or (_PLAIN.fullmatch(value) and not _NO_TEXT.fullmatch(value)):
        return show_value(value)
    # A backslash is one but before a quote; ${ would name another parameter.
    escaped = _BEFORE_QUOTE.sub(lambda found: found[1] * 2 + found[2].replace('"', '\\"'), value)
    return '"' + escaped.replace("${", "\\${") + '"'


def environment_table(
    environments: Mapping[str, Mapping[str, Any]],
) -> list[tuple[str, str]]:
    """Return what the methods ran on, line by line; where they differ, which ran on what."""
    keys = dict.fromkeys(key for one in environments.values() for key in one)
    rows = []
    for key in keys:
        by_value: dict[str, list[str]] = {}
        for name, one in environments.items():
            value = show_value(one[key]).strip('"') if key in one else "not recorded"
            by_value.setdefault(value, []).append(name)
        if len(by_value) == 1:
            rows.append((key, next(iter(by_value))))
        else:
            rows.append((key, "; ".join(f"{v} ({', '.join(n)})" for v, n in by_value.items())))
    return rows
