"""A small disk of its own, to be filled to the last page."""

import os
import subprocess
from contextlib import contextmanager

import pytest

PAGE = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def mounted(folder, *, options="size=48m"):
    """Yield a folder that is a small disk; skips the test where mounting is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk, *, pages_left):
    """Fill a disk up to some pages; returns the file that has to go to make room again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        free = os.statvfs(disk).f_bavail - pages_left
        os.posix_fallocate(file.fileno(), 0, free * PAGE)
    return filler


def fill_with_files(disk, *, files_left):
    """Make files until the disk can hold no more of them but a few; returns their folder."""
    folder = disk / "fillers"
    folder.mkdir()
    for number in range(os.statvfs(disk).f_favail - files_left):
        (folder / str(number)).touch()
    return folder
