"""Let one process at a time do a thing in a folder, and say who does it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from distillation.base.errors import DistillationError
from distillation.base.limits import describe_limit
from distillation.base.regular_files import open_regular

_LONGEST_PID = 20


class LockError(DistillationError):
    """Another process does this already; the message has its number."""


@contextmanager
def one_at_a_time(name: str, folder: Path) -> Iterator[None]:
    """Hold the lock of a name; it goes with the process, however that ends.

    Args:
        name: what is done.
        folder: where it is done; locks lie in a folder of it that may be deleted.

    Raises:
        LockError: another process holds it, or something stands in the place of its files.
    """
    stem = re.sub(r"\W+", "-", name)
    holder = folder / f"{stem}.pid"
    lock = FileLock(folder / f"{stem}.lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        holder.unlink(missing_ok=True)  # whatever it is, it is not written through
        with holder.open("x", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    except Timeout as error:
        pid = _read_pid(holder)
        who = "another process" if pid is None else f"process {pid}"
        end = "" if pid is None else f" or end it (kill {pid})"
        raise LockError(
            f"{name} is running here already, as {who}; allowed: one at a time: wait until it has "
            f"ended{end}, then type the same command again"
        ) from error
    except OSError as error:
        lock.release()
        if describe_limit(error):
            raise
        raise LockError(
            f"{error.filename}: {name} cannot be locked, something else stands there "
            f"({error.strerror}); nothing in {folder} is needed between runs: remove it, then type "
            "the same command again"
        ) from error
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read_pid(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError), open_regular(path) as file:
        return int(file.read(_LONGEST_PID))
    return None
