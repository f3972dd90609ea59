"""What to tell a user when the machine has reached a limit: disk, memory, permissions."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from distillation.base.errors import DistillationError

_AS_BEFORE = "what was written before is whole; then type the same command again"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class SpaceError(DistillationError):
    """What is to be written does not fit on the disk."""


def check_space(directory: Path, num_bytes: int, *, way_out: str) -> None:
    """Check that what will be written below a folder fits on its disk, before any work.

    Args:
        directory: it need not exist yet.
        num_bytes: what it will hold.
        way_out: what makes it smaller.

    Raises:
        SpaceError: it does not fit.
    """
    free = _free_bytes(str(directory))
    if free is not None and num_bytes > free:
        raise SpaceError(
            f"{directory} needs {num_bytes / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB "
            f"free; make room, or {way_out}"
        )


def describe_limit(error: BaseException) -> str | None:
    """Return a sentence for an error that the machine's limits cause; None for any other."""
    if isinstance(error, OSError) and error.errno in _FULL:
        where = _place(error)
        free = _free_bytes(where)
        room = "" if free is None else f" ({free / 1e9:.2f} GB are free)"
        return (
            f"{where}: the disk is full{room}; make room, for instance by "
            f"`dvc gc --workspace`, or use a smaller teacher_cache_gb; {_AS_BEFORE}"
        )
    if isinstance(error, OSError) and error.errno in _FORBIDDEN:
        return (
            f"{_place(error)}: {error.strerror}; check who owns it, its permissions, and whether "
            f"the disk is mounted read-only; {_AS_BEFORE}"
        )
    if is_out_of_memory(error):
        return (
            f"out of memory ({_first_line(error)}); use a smaller batch_size, teacher_batch_size "
            f"or image_size, or a machine with more; {_AS_BEFORE}"
        )
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; for the host's, torch has no class of its own."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__


def _place(error: OSError) -> str:
    name = error.filename2 or error.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else str(Path.cwd())


def _free_bytes(place: str) -> int | None:
    for path in (Path(place), *Path(place).resolve().parents):
        try:
            return shutil.disk_usage(path).free
        except OSError:
            continue
    return None
