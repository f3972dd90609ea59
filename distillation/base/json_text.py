"""Parse JSON that somebody else wrote."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Parse JSON as `json.loads` does; what nests too deeply is a `ValueError` too."""
    try:
        return json.loads(text, **options)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
