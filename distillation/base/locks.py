"""Let one process at a time do a thing in a folder, and say who does it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from distillation.base.errors import DistillationError
from distillation.base.limits import describe_limit
from distillation.base.regular_files import open_regular

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a file system without locks answers, such as NFS without its lock daemon."""
_LONGEST_HOLDER = 300


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
            file.write(f"{os.getpid()} {socket.gethostname()}\n")
    except Timeout as error:
        pid, host = _read_holder(holder)
        is_here = host == socket.gethostname()
        who = "another process" if pid is None else f"process {pid}"
        who += "" if is_here or host is None else f" on {host}"
        end = f" or end it (kill {pid})" if is_here else ""
        raise LockError(
            f"{name} is running here already, as {who}; allowed: one at a time: wait until it has "
            f"ended{end}, then type the same command again"
        ) from error
    except OSError as error:
        lock.release()
        if describe_limit(error):
            raise
        if error.errno in NO_LOCKS:
            raise LockError(
                f"{folder}: its file system has no locks ({error.strerror}), without which two "
                "processes would write the same files; use a folder on another one, or have it "
                "mounted with locks"
            ) from error
        raise LockError(
            f"{error.filename or folder}: {name} cannot be locked, something else stands there "
            f"({error.strerror}); nothing in {folder} is needed between runs: remove it, then type "
            "the same command again"
        ) from error
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read_holder(path: Path) -> tuple[int | None, str | None]:
    """Return the process that holds a lock, and its machine, as far as they can be read."""
    with contextlib.suppress(OSError, ValueError), open_regular(path) as file:
        pid, _, host = file.read(_LONGEST_HOLDER).decode("ascii").strip().partition(" ")
        return int(pid), host or None
    return None, None
