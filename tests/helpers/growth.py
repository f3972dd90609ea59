"""How much memory work takes for each further image, by what it takes for few and for many."""

import re
import threading
import tracemalloc
from pathlib import Path


def bytes_per_item(make, *, few, many, measure=None):
    """Return the growth of the peak; `make` prepares the work for a number of items.

    Of two measurements of each the smaller counts: what other threads hold by chance only adds.
    """
    make(few)()  # loads what code there is to load
    measure = measure or peak_of_python
    peaks = [min(measure(make(number)) for _ in range(2)) for number in (few, many)]
    return (peaks[1] - peaks[0]) / (many - few)


def peak_of_python(work):
    """Return the most bytes that Python objects and numpy arrays take while work is done."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peak_of_process(work):
    """Return the most private memory of this process during work; pages of files do not count."""
    peaks, is_done = [_private_bytes()], threading.Event()

    def watch():
        while not is_done.wait(0.002):
            peaks.append(_private_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        is_done.set()
        watcher.join()
    return max(peaks) - peaks[0]


def _private_bytes():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kibibytes,) = re.findall(r"^RssAnon:\s*(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) * 1024
