"""How long stages take: in words, and kept for the next run to tell how long it may still be."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from distillation.base.files import write_json
from distillation.base.json_text import parse_json


def describe_duration(seconds: float) -> str:
    """Put a time into words, as exactly as anybody wants to know it."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def keep_duration(path: Path, name: str, seconds: float) -> None:
    """Keep how long a stage took that has just ended."""
    kept = {**_read(path), name: {"seconds": seconds, "ended": time.time()}}
    write_json(path, kept)


def duration_of_rest(path: Path, name: str, *, since: float) -> float:
    """Return how many seconds the stages took that came after this one the last time.

    Those are what ended after this stage did then; what has run since the command began is done.
    The file is a convenience: one that is missing or damaged holds nothing.

    Args:
        path: where durations are kept.
        name: the stage.
        since: when the command that runs the stages began, in seconds since the epoch.
    """
    kept = _read(path)
    if name not in kept:
        return 0.0
    ended = kept[name]["ended"]
    return sum(one["seconds"] for one in kept.values() if ended < one["ended"] < since)


def _read(path: Path) -> dict[str, dict[str, float]]:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        kept = parse_json(path.read_text(encoding="utf-8"))
        return {
            name: {"seconds": float(one["seconds"]), "ended": float(one["ended"])}
            for name, one in kept.items()
        }
    return {}
