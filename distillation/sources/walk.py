"""Walk a folder: its files and folders, and all that cannot be read.

The same walk for training and for prediction. Links are followed, names of `names` left out, and
nothing but a regular file is ever opened. What stands in an archive is `archives`' business.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from distillation.base.printable import printable
from distillation.sources.names import is_left_out, problem_with_name

# A folder by device and inode, and the folders that a path lies in.
_Identity = tuple[int, int]
_Line = frozenset[_Identity]

_MAX_PATHS = 100
"""How many paths may lead to one folder: links between a dozen folders make millions of them."""

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
    for found in iter_folder(folder):
        if isinstance(found, Unreadable):
            walk.problems.append(found)
        else:
            path, is_folder = found
            (walk.folders if is_folder else walk.files).append(path)
    return walk


def iter_folder(folder: Path) -> Iterator[tuple[str, bool] | Unreadable]:
    """Yield what lies below a folder, one by one, as `walk_folder` lists it.

    Yields:
        A relative path and whether it is a folder, or what cannot be read, by the order of parts.
        A folder comes before what is in it, and no more is held than the names in one line of
        folders.
    """
    # Folders that are being listed, outermost first, each with what is still to come in it.
    paths: Counter[_Identity] = Counter()
    first = _list_folder(folder, "", frozenset(), paths)
    if isinstance(first, Unreadable):
        yield first
        return
    open_folders = [first]
    while open_folders:
        relative, names, line = open_folders[-1]
        name = next(names, None)
        if name is None:
            open_folders.pop()
            continue
        inner = f"{relative}/{name}" if relative else name
        found = _is_folder(folder / inner, line)
        yield found if isinstance(found, Unreadable) else (inner, found)
        if found is True:
            listed = _list_folder(folder, inner, line, paths)
            if isinstance(listed, Unreadable):
                yield listed
            else:
                open_folders.append(listed)


def _list_folder(
    folder: Path, relative: str, above: _Line, paths: Counter[_Identity]
) -> tuple[str, Iterator[str], _Line] | Unreadable:
    """Return a folder's path, the names in it in order, and the folders it lies in with itself.

    `paths` counts the paths that have led to a folder.
    """
    here = folder / relative
    try:
        status = here.stat()
        identity = (status.st_dev, status.st_ino)
        paths[identity] += 1
        if paths[identity] > _MAX_PATHS:
            return Unreadable(
                here,
                f"{printable(str(here))} is a folder that {_MAX_PATHS} other paths lead to, by "
                "links; remove some of these",
            )
        with os.scandir(here) as entries:
            names = sorted(entry.name for entry in entries if not is_left_out(entry.name))
    except OSError as error:
        return _unreadable(here, error)
    return relative, iter(names), above | {identity}


def by_parts(path: str) -> list[str]:
    """Return the sorting key of a path: folder by folder, as pathlib compares."""
    return path.split("/")


def _is_folder(path: Path, line: _Line) -> bool | Unreadable:
    """Tell a folder from a file, or what forbids to read it; `line` has the folders it lies in.

    A folder that may not be listed is found when it is listed.
    """
    shown = printable(str(path))
    if refused := problem_with_name(path.name):
        return Unreadable(path, f"{shown} {refused}")
    try:
        status = path.stat()
    except OSError as error:
        return _unreadable(path, error)
    if stat.S_ISDIR(status.st_mode):
        if (status.st_dev, status.st_ino) in line:
            return Unreadable(path, f"{shown} is a link to a folder that it lies in itself")
        return True
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "device")
        return Unreadable(path, f"{shown} is a {kind}; allowed: files and folders")
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        return Unreadable(path, f"{shown} cannot be read: Permission denied")
    return False


def _unreadable(path: Path, error: OSError) -> Unreadable:
    try:
        target = f" (a link to {printable(os.readlink(path))})"  # noqa: PTH115
    except OSError:  # no link, or a path that is too long for any question
        target = ""
    return Unreadable(path, f"{printable(str(path))} cannot be read: {error.strerror}{target}")
