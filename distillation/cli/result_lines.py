"""What `predict` prints: a line for people, or a JSON object, whatever is in a name."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from distillation.base.printable import printable

Result = dict[str, Any]
"""`path` with `class`, `probability` and `top`, or with `error`; the path is as the system has it.
"""

# What json leaves as it is and a terminal, or a reader of lines, does not; and what is no text.
_TO_ESCAPE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def to_line(result: Result) -> str:
    """Say a result in one line, the most probable class first."""
    classes = (
        f"{printable(one['class'])} {100 * one['probability']:.1f} %" for one in result["top"]
    )
    return f"{printable(result['path'])}: {', '.join(classes)}"


def to_json(result: Result, *, encoding: str) -> str:
    """Return a result as one line of JSON, whatever is in a name; paths come back from it whole.

    Args:
        result: of `classify`.
        encoding: of the stream it is printed to; all but UTF-8 get ASCII.
    """
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    text = json.dumps(result, ensure_ascii=not is_utf8, allow_nan=False)
    return _TO_ESCAPE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
