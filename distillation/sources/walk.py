"""Walk a folder: its files and folders, and all that cannot be read.

The same walk for training and for prediction. Links are followed, names of `names` left out, and
nothing but a regular file is ever opened. What stands in an archive is `archives`' business.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from distillation.sources.names import is_left_out, printable, problem_with_name

# The folders that a path lies in, by device and inode.
_Line = frozenset[tuple[int, int]]

_KINDS = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A path that cannot be read, and the sentence that says so."""

    path: Path
    message: str


@dataclasses.dataclass(frozen=True)
class Walk:
    """What lies below a folder, by paths relative to it with `/`, in the order of their parts."""

    files: list[str]
    folders: list[str]
    problems: list[Unreadable]


def walk_folder(folder: Path) -> Walk:
    """List all files and folders below one, also what links lead to; opens none of them."""
    walk = Walk([], [], [])
    # Folders that are being listed, outermost first, each with what is still to come in it. In
    # this order nothing need be sorted at the end, which takes more memory than the names.
    open_folders = [_list_folder(folder, "", frozenset(), walk)]
    while open_folders:
        relative, names, line = open_folders[-1]
        name = next(names, None)
        if name is None:
            open_folders.pop()
            continue
        inner = f"{relative}/{name}" if relative else name
        path = folder / inner
        if found := _problem(path, line):
            walk.problems.append(found)
        elif path.is_dir():
            walk.folders.append(inner)
            open_folders.append(_list_folder(folder, inner, line, walk))
        else:
            walk.files.append(inner)
    return walk


def _list_folder(
    folder: Path, relative: str, above: _Line, walk: Walk
) -> tuple[str, Iterator[str], _Line]:
    """Return a folder's path, the names in it in order, and the folders it lies in with itself."""
    here = folder / relative
    try:
        status = here.stat()
        with os.scandir(here) as entries:
            names = sorted(entry.name for entry in entries if not is_left_out(entry.name))
    except OSError as error:
        walk.problems.append(_unreadable(here, error))
        return relative, iter(()), above
    return relative, iter(names), above | {(status.st_dev, status.st_ino)}


def by_parts(path: str) -> list[str]:
    """Return the sorting key of a path: folder by folder, as pathlib compares."""
    return path.split("/")


def _problem(path: Path, line: _Line) -> Unreadable | None:
    """Return what forbids to read a path; `line` has the folders it lies in.

    A folder that may not be listed is found when it is listed.
    """
    if refused := problem_with_name(path.name):
        return Unreadable(path, f"{printable(str(path))} {refused}")
    try:
        status = path.stat()
    except OSError as error:
        return _unreadable(path, error)
    if stat.S_ISDIR(status.st_mode):
        if (status.st_dev, status.st_ino) in line:
            return Unreadable(path, f"{path} is a link to a folder that it lies in itself")
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "device")
        return Unreadable(path, f"{path} is a {kind}; allowed: files and folders")
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        return Unreadable(path, f"{path} cannot be read: Permission denied")
    return None


def _unreadable(path: Path, error: OSError) -> Unreadable:
    target = f" (a link to {printable(str(path.readlink()))})" if path.is_symlink() else ""
    return Unreadable(path, f"{printable(str(path))} cannot be read: {error.strerror}{target}")
