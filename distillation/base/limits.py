"""What to tell a user when the machine has reached a limit: disk, memory, permissions."""

from __future__ import annotations

import errno
import logging
import os
import re
import resource
from pathlib import Path

from distillation.base.errors import DistillationError

logger = logging.getLogger(__name__)

_AS_BEFORE = "what was written before is whole; then type the same command again"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_MEMORY = (
    *("can't allocate memory", "Cannot allocate memory", "not enough memory", "out of memory"),
    *("Failed to allocate memory", "bad_alloc", "bad allocation"),  # ONNX Runtime, C++
    *("failed to map segment", f"pthread_create failed, error code: {errno.ENOMEM}"),
)
_FEW_FILES = 100
_ADDRESS_SPACE_OF_TORCH = 4_500_000_000
"""Bytes that a training's libraries and first buffers map: 3.9e9 with torch's CUDA build."""
_DVCS_DATABASE = ("disk is full", "disk I/O error", "readonly database", "unable to open database")
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
    disk = _find_disk(str(directory))
    if disk is None:
        return
    free = _free_bytes(disk)
    found = f"{num_bytes / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free"
    if num_bytes > free:
        raise SpaceError(f"{directory} needs {found}; make room, or {way_out}")
    if 2 * num_bytes > free and "DVC_STAGE" in os.environ:
        logger.warning(
            "WARNING: %s needs %s; DVC's copy of it needs as much again, unless its cache is on "
            "another disk or the file system shares blocks (reflinks)",
            directory,
            found,
        )


def check_address_space() -> None:
    """Check that `ulimit -v` leaves room for torch, before it is imported.

    Below that, libraries that torch and scikit-learn load do not fail: OpenBLAS tries to get its
    memory again for ever.

    Raises:
        DistillationError: it does not.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < _ADDRESS_SPACE_OF_TORCH:
        raise DistillationError(
            f"this shell allows a program {allowed / 1e9:.2f} GB of address space (`ulimit -v`), "
            f"and training takes {_ADDRESS_SPACE_OF_TORCH / 1e9:.1f} GB before it has begun; "
            "raise it: `ulimit -v unlimited`"
        )


def describe_limit(error: BaseException) -> str | None:
    """Return a sentence for an error that the machine's limits cause; None for any other."""
    if isinstance(error, OSError) and error.errno in _FULL:
        where = _place(error)
        return (
            f"{where}: {_describe_full(where)}; make room (while nothing runs, `dvc gc "
            "--all-commits --all-experiments` removes what no commit and no experiment of this "
            f"clone uses), or use a smaller teacher_cache_gb; {_AS_BEFORE}"
        )
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return (
            f"{_place(error)}: files may not be as large as it becomes, by the file system or by "
            f"`ulimit -f`; raise the limit, or use another disk; {_AS_BEFORE}"
        )
    if isinstance(error, OSError) and error.errno in _FORBIDDEN:
        return (
            f"{_place(error)}: {error.strerror}; check who owns it, its permissions, and whether "
            f"the disk is mounted read-only; {_AS_BEFORE}"
        )
    if type(error).__name__ == "OperationalError" and _has(_DVCS_DATABASE, error):
        return (
            f"DVC's own database on this machine: {error}; make room in the folder it lies in "
            "(/var/tmp/dvc) and see that it can be written to, or name another one by "
            f"DVC_SITE_CACHE_DIR; {_AS_BEFORE}"
        )
    if is_out_of_memory(error):
        return (
            f"out of memory ({_first_line(error)}); use DISTILLATION_PROCESSES=1, a smaller "
            f"batch_size, teacher_batch_size or image_size, or a machine with more; {_AS_BEFORE}"
        )
    return None


def name_place(error: BaseException, place: Path) -> OSError | None:
    """Return an error of the system with number and place, where who raised it left one out.

    Libraries that are not written in Python have errors of their own, with the number in the text.
    """
    found = re.search(r"\(os error (\d+)\)", str(error))
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        number = error.errno
    elif found:
        number = int(found[1])
    else:
        return None
    return OSError(number, os.strerror(number), str(place))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; for the host's, few libraries have a class of their own."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return not isinstance(error, DistillationError) and _has(_NO_MEMORY, error)


def find_out_of_memory(error: BaseException) -> BaseException | None:
    """Return the error among the causes of one that says that memory ran out, if any does.

    A reader that cannot get memory takes a good file for a damaged one.
    """
    found: BaseException | None = error
    while found is not None and not is_out_of_memory(found):
        found = found.__cause__
    return found


def _has(texts: tuple[str, ...], error: BaseException) -> bool:
    return any(text in str(error) for text in texts)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__


def _place(error: OSError) -> str:
    name = error.filename2 or error.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else str(Path.cwd())


def _describe_full(place: str) -> str:
    disk = _find_disk(place)
    if disk is None:
        return "the disk is full"
    if disk.f_files and disk.f_favail < _FEW_FILES:  # without such a limit, both are 0
        return f"the disk can hold only {disk.f_favail} more files (inodes)"
    return f"the disk is full ({_free_bytes(disk) / 1e9:.2f} GB are free)"


def _free_bytes(disk: os.statvfs_result) -> int:
    return disk.f_bavail * disk.f_frsize


def _find_disk(place: str) -> os.statvfs_result | None:
    for path in (Path(place), *Path(place).resolve().parents):
        try:
            return os.statvfs(path)
        except OSError:
            continue
    return None
