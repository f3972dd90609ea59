"""Write files and folders whole or not at all, whoever else writes them, and however it ends.

What is written lies in a hidden folder of its own beside its place, which only this process knows,
until it is complete and on the disk. A process that is killed leaves such a folder behind; the next
one that writes to the same place finds its lock free and removes it.

    .<name>-XXXXXXXX/lock    held while its owner lives
    .<name>-XXXXXXXX/new     what is being written
    .<name>-XXXXXXXX/old     what was there, between the two renames that replace a folder
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from distillation.base.errors import DistillationError
from distillation.base.limits import name_place

_YOUNG_SECONDS = {True: 2.0, False: 60.0}
"""A younger hidden folder, with a lock or without, may be one that its owner is just making."""


def write_text(path: Path, text: str) -> None:
    """Write a text file; a reader sees the old content or the new, never half of it."""
    with new_file(path) as new:
        new.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a value as indented JSON; infinities and NaN are refused, as JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to; it takes the place of `path` when the block ends well.

    An existing file stays as it is until then. The new one is on the disk before it is seen, and
    has the permissions that files get here.

    Raises:
        DistillationError: there is a folder of this name.
    """
    if path.is_dir() and not path.is_symlink():
        raise DistillationError(
            f"{path}: is a folder, and a file of this name is to be written; move the folder away"
        )
    with _hidden_folder(path) as hidden:
        new = hidden / "new" / path.name
        new.parent.mkdir()
        yield new
        with contextlib.suppress(PermissionError):  # some mounts have one mode for all files
            new.chmod(new.parent.stat().st_mode & 0o666)
        _flush(new)
        new.replace(path)
        _flush(path.parent)


@contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes the place of `directory` when the block ends well.

    An existing folder of that name stays as it is until the new one is whole, and for good when
    the block fails.
    """
    with _hidden_folder(directory) as hidden:
        new, old = hidden / "new", hidden / "old"
        new.mkdir()
        yield new
        for path in new.rglob("*"):
            _flush(path)
        try:
            if directory.exists():
                directory.replace(old)
            new.replace(directory)
        finally:
            # Whatever came between the two renames, an interrupt too: the old one goes back.
            if old.exists() and not directory.exists():
                old.replace(directory)
        _flush(directory.parent)


@contextmanager
def _hidden_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside a path, locked; it goes away with the block."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    hidden = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with FileLock(hidden / "lock"):
            yield hidden
    except Exception as error:
        if (named := name_place(error, target)) is None:
            raise
        raise named from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _remove_leftovers(target: Path) -> None:
    """Remove the hidden folders of writers that are gone; what one had moved away goes back."""
    for hidden in target.parent.glob(f".{glob.escape(target.name)}-????????"):
        lock = hidden / "lock"
        # Another process may be removing it too.
        with contextlib.suppress(OSError, Timeout):
            age = time.time() - hidden.lstat().st_mtime
            if hidden.is_symlink() or not hidden.is_dir() or age < _YOUNG_SECONDS[lock.exists()]:
                continue
            with FileLock(lock, blocking=False):
                if (hidden / "old").exists() and not target.exists():
                    (hidden / "old").replace(target)
                shutil.rmtree(hidden)


def _flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems, such as shared folders of virtual machines, cannot do it for a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
