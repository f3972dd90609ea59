"""Keep freed memory for the next training step instead of giving it back to the kernel.

A training step allocates and frees the same few hundred buffers again and again. glibc takes the
larger ones from the kernel each time, which clears every page anew: on the CPU that was up to a
fifth of a step's time (docs/performance.md). Nothing here changes a result.
"""

from __future__ import annotations

import ctypes
import platform

# Names and values of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_MAX_INT = 2**31 - 1
_TOP_PAD_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to reuse freed memory; call it once, early, in a program's `main`.

    Returns:
        True when the settings were taken, False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        _M_ARENA_MAX: 1,  # one heap, so that what one thread frees serves the others
        _M_MMAP_MAX: 0,  # large buffers come from the heap too
        _M_TRIM_THRESHOLD: _MAX_INT,  # the heap does not shrink
        _M_TOP_PAD: _TOP_PAD_BYTES,  # and grows in large steps
    }
    taken = [mallopt(key, value) for key, value in settings.items()]
    return taken == [1] * len(settings)
