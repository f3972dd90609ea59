"""Open regular files, and nothing else: reading a pipe or a device may never end."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

_KINDS = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFDIR: "folder"}

UNPACKED_IN_PARTS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Methods of a zip's members that are unpacked as far as asked for; zipfile unpacks others as a
whole, whatever size they declare."""


class NotAFileError(OSError):
    """A path is that of something else than a file; `kind` says of what."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(None, f"is a {kind}", str(path))
        self.kind = kind


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or one that a link leads to, for reading.

    Raises:
        NotAFileError: the path is that of a folder, a pipe, a socket or a device.
        OSError: it cannot be opened.
    """
    _check_kind(path, path.stat().st_mode)
    # What takes the file's place in this moment is not waited for, and is seen below.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    try:
        _check_kind(path, os.fstat(file.fileno()).st_mode)
    except OSError:
        file.close()
        raise
    return file


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotAFileError(path, _KINDS.get(stat.S_IFMT(mode), "device"))
