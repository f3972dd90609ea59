"""Decode the images of a source in parallel, with a bounded number of them in memory.

Threads are enough: Pillow gives up Python's lock while it decodes and scales. They were as quick
as processes at 32, 224 and 500 pixels (docs/performance.md), and an archive is read once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from distillation.base.progress import Progress
from distillation.sources.decode import DataError
from distillation.sources.source import Sample

_CHUNK_IMAGES = 16
_CHUNK_BYTES = 4 * 2**20
_CHUNKS_PER_THREAD = 2

# The number of a sample in the order of reading, and what is wrong with it.
Problem = tuple[int, str]


def decode_all(
    samples: Iterable[Sample],
    store: Callable[[Sample], None],
    *,
    total: int,
    num_threads: int | None = None,
) -> list[str]:
    """Call `store` for every sample, in several threads.

    Args:
        samples: read one by one, in this thread.
        store: decodes a sample and writes it; a `DataError` of it is collected.
        total: how many samples there are, for the progress.
        num_threads: as many as there are processors by default.

    Returns:
        What is wrong with images that cannot be used, in the order of reading.
    """
    num_threads = num_threads or _count_processors()
    problems: list[Problem] = []
    running: set[Future[tuple[int, list[Problem]]]] = set()
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    try:
        with Progress(total, unit="image") as progress:
            for chunk in _chunks(samples):
                if len(running) >= num_threads * _CHUNKS_PER_THREAD:
                    running = _collect(running, problems, progress)
                running.add(pool.submit(_store_chunk, chunk, store))
            while running:
                running = _collect(running, problems, progress)
    finally:
        pool.shutdown(cancel_futures=True)
    return [message for _, message in sorted(problems)]


def _count_processors() -> int:
    if hasattr(os, "sched_getaffinity"):  # of this process; not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _chunks(samples: Iterable[Sample]) -> Iterator[list[tuple[int, Sample]]]:
    """Group samples, numbered, by a number of images or of bytes that they hold."""
    chunk: list[tuple[int, Sample]] = []
    for numbered in enumerate(samples):
        chunk.append(numbered)
        held = sum(sample.held_bytes for _, sample in chunk)
        if len(chunk) == _CHUNK_IMAGES or held >= _CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _store_chunk(
    chunk: list[tuple[int, Sample]], store: Callable[[Sample], None]
) -> tuple[int, list[Problem]]:
    problems = []
    for number, sample in chunk:
        try:
            store(sample)
        except DataError as error:
            problems.append((number, str(error)))
    return len(chunk), problems


def _collect(
    running: set[Future[tuple[int, list[Problem]]]],
    problems: list[Problem],
    progress: Progress,
) -> set[Future[tuple[int, list[Problem]]]]:
    """Wait for a chunk at least; returns those that still run."""
    done, running = wait(running, return_when=FIRST_COMPLETED)
    for number, found in (future.result() for future in done):
        problems += found
        progress.advance(number)
    return running
