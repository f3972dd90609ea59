"""Checksums of what stages hand to each other, so that a damaged file is refused and not used.

DVC compares its own checksums only where a file's time or size has changed, and a file in its cache
that it has made read-only not at all. So each large file's SHA-256 is written beside it, or into
it, by whoever writes the file, and compared where the file is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillation.base.json_text import parse_json
from distillation.base.regular_files import NotAFileError, open_regular

PACKAGE = Path(__file__).parents[1]

CHECKSUM_KEY = "sha256"
"""Under this name a JSON object holds the checksum of all the rest of it."""


class ChecksumError(ValueError):
    """Something does not fit its checksum, or has none; the message names it alone."""


def check_regular(path: Path) -> None:
    """Raise `ChecksumError` for a pipe, device or folder, and `OSError` where there is nothing."""
    try:
        open_regular(path).close()
    except NotAFileError as error:
        raise ChecksumError(f"{path.name} is no regular file") from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; the file is never in memory whole."""
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_code(*names: str) -> str:
    """Return the SHA-256 of files of this package, wherever it lies.

    Args:
        names: paths within the package: a file, or a folder, which stands for its modules.
    """
    digest = hashlib.sha256()
    for name in names:
        path = PACKAGE / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{name} {file.name} ".encode() + file.read_bytes())
    return digest.hexdigest()


def hash_json(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a JSON object says, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its own checksum."""
    return {**content, CHECKSUM_KEY: hash_json(content)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a file that holds what `seal` returned, and compare.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON object.
        ChecksumError: it is no regular file, has no checksum, or another.
    """
    check_regular(path)
    content = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    expected = content.pop(CHECKSUM_KEY, None)
    if expected is None:
        raise ChecksumError(f"{path.name} has no checksum")
    if expected != hash_json(content):
        raise ChecksumError(f"{path.name} does not fit its checksum")
    return content


def check_files(directory: Path, checksums: Mapping[str, str]) -> None:
    """Compare files with their checksums, by name.

    Raises:
        OSError: one cannot be read.
        ChecksumError: one is no regular file or has another checksum.
    """
    for name, expected in checksums.items():
        if hash_file(directory / name) != expected:
            raise ChecksumError(f"{name} does not fit its checksum")


def describe_repair(path: Path, *, by: str) -> str:
    """Say how to get rid of a damaged file or folder that a stage makes.

    Args:
        path: what is damaged, as the user knows it; deleted first, since DVC does not look at a
            file whose time and size are as before.
        by: what makes it, as in `run prepare_data again`.
    """
    return (
        f"delete {path} and run `dvc checkout {path}`; if DVC's cache is damaged too "
        f"(docs/damaged-files.md), delete both and run {by} again"
    )
