"""Memory that is freed is kept: fewer pages have to be cleared anew."""

import platform
import subprocess
import sys

import pytest

from distillation.base.allocator import keep_freed_memory

IS_GLIBC = platform.libc_ver()[0] == "glibc"

# Large buffers are beyond what glibc comes to keep by itself (32 MiB).
PROGRAM = """
import resource
import sys

from distillation.base.allocator import keep_freed_memory

taken = keep_freed_memory() if sys.argv[1] == "keep" else None

def step():
    buffers = [bytearray(mebibytes << 20) for mebibytes in (40, 1, 36)]
    return sum(len(buffer) for buffer in buffers)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(taken, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(mode, repository):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode],
        capture_output=True,
        text=True,
        check=True,
        cwd=repository,
    )
    taken, faults = done.stdout.split()
    return taken, int(faults)


@pytest.mark.skipif(not IS_GLIBC, reason="the C library is not glibc")
def test_freed_memory_is_used_again(repository):
    taken, kept = run("keep", repository)
    _, returned = run("as it is", repository)
    assert taken == "True"
    # 380 MiB are 97,280 pages of 4 KiB, or 190 of 2 MiB where the kernel gives those.
    assert returned > 150
    assert kept < returned / 10


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("distillation.base.allocator.ctypes.CDLL", None)
    assert keep_freed_memory() is False
