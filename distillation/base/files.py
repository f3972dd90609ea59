"""Write files and folders whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a text file; a reader sees the old content or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a value as indented JSON; infinities and NaN are refused, as JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes the place of `directory` when the block ends well.

    An existing folder of that name stays as it is until the new one is whole, and for good when
    the block fails.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        new = scratch / "new"
        new.mkdir()
        yield new
        if directory.exists():
            directory.replace(scratch / "old")
        new.replace(directory)
    finally:
        # Whatever came between the two renames, an interrupt too: the old one goes back.
        old = scratch / "old"
        if old.exists() and not directory.exists():
            old.replace(directory)
        shutil.rmtree(scratch, ignore_errors=True)
