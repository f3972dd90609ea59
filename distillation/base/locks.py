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


class LockError(DistillationError):
    """Another process does this already; the message has its number."""


@contextmanager
def one_at_a_time(name: str, folder: Path) -> Iterator[None]:
    """Hold the lock of a name; it goes with the process, however that ends.

    Args:
        name: what is done.
        folder: where it is done; locks lie in a folder of it that may be deleted.

    Raises:
        LockError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"\W+", "-", name)
    holder = folder / f"{stem}.pid"
    lock = FileLock(folder / f"{stem}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        pid = _read_pid(holder)
        who = "another process" if pid is None else f"process {pid}"
        end = "" if pid is None else f" or end it (kill {pid})"
        raise LockError(
            f"{name} is running here already, as {who}; allowed: one at a time: wait until it has "
            f"ended{end}, then type the same command again"
        ) from error
    try:
        holder.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read_pid(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii"))
    return None
