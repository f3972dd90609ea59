"""Many samples in threads: all are stored, what is wrong is told in order, memory is bounded."""

import threading
import time

import pytest

from distillation.sources.decode import DataError
from distillation.sources.decoding import decode_all
from distillation.sources.source import Sample


def make_samples(count, **options):
    for index in range(count):
        yield Sample(split="train", index=index, load=lambda sizes: [], **options)


@pytest.mark.parametrize("num_threads", [1, 4])
@pytest.mark.parametrize("count", [0, 1, 16, 1000])
def test_every_sample_is_stored_once(count, num_threads):
    stored = []
    store = lambda sample: stored.append(sample.index)  # noqa: E731
    assert decode_all(make_samples(count), store, total=count, num_threads=num_threads) == []
    assert sorted(stored) == list(range(count))


def test_what_is_wrong_is_told_in_the_order_of_reading():
    def store(sample):
        if sample.index % 3 == 0:
            time.sleep(0.002 if sample.index < 50 else 0)
            raise DataError(f"sample {sample.index}")

    problems = decode_all(make_samples(100), store, total=100, num_threads=4)
    assert problems == [f"sample {index}" for index in range(0, 100, 3)]


def test_a_bug_is_no_problem_of_the_data():
    def store(sample):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decode_all(make_samples(100), store, total=100, num_threads=2)


@pytest.mark.parametrize("held_bytes", [0, 10_000_000])
def test_few_samples_are_read_ahead(held_bytes):
    """Of large ones one at a time: two chunks per thread, and one that is being read."""
    lock, read, done, ahead = threading.Lock(), 0, 0, []

    def samples():
        nonlocal read
        for sample in make_samples(400, held_bytes=held_bytes):
            with lock:
                read += 1
                ahead.append(read - done)
            yield sample

    def store(sample):
        nonlocal done
        time.sleep(0.001)
        with lock:
            done += 1

    decode_all(samples(), store, total=400, num_threads=2)
    assert max(ahead) <= 5 * (1 if held_bytes else 16)


def test_an_error_while_reading_ends_it():
    def samples():
        yield from make_samples(40)
        raise DataError("cut short")

    with pytest.raises(DataError, match=r"^cut short$"):
        decode_all(samples(), lambda sample: None, total=80, num_threads=2)
