"""Models are timed in turns."""

import time

import numpy as np
import pytest

from distillation.export.sessions import choose_batch_size
from distillation.export.timing import measure_speeds


class Sleeper:
    """Stands for a model: takes its time for an image, and notes its calls."""

    image_size = 8

    def __init__(self, name, seconds, calls):
        self._name, self._seconds, self._calls = name, seconds, calls

    def run(self, pixels):
        self._calls.append((self._name, len(pixels)))
        time.sleep(self._seconds * len(pixels) ** 0.5)
        assert pixels.dtype == np.uint8
        assert pixels.shape[1:] == (3, 8, 8)


def test_rounds_alternate_and_the_slower_model_is_slower():
    calls = []
    models = {name: Sleeper(name, s, calls) for name, s in (("slow", 4e-4), ("fast", 0.0))}
    speeds = measure_speeds(models, limit_seconds=0.0)
    batches = [name for name, count in calls if count == 256]
    assert batches == ["slow", "slow", "fast", "fast", "fast", "slow", "slow", "fast"]
    slow, fast = speeds["slow"], speeds["fast"]
    assert 0.4 <= slow.latency_ms_p50 <= slow.latency_ms_p95
    assert fast.latency_ms_p50 < slow.latency_ms_p50
    assert fast.throughput_images_per_second > slow.throughput_images_per_second
    assert slow.throughput_images_per_second <= 256 / (4e-4 * 16)
    assert slow.throughput_batch_size == 256


@pytest.mark.parametrize(("size", "expected"), [(8, 256), (64, 256), (224, 20), (1024, 1)])
def test_a_batch_of_large_images_is_small(size, expected):
    assert choose_batch_size(size) == expected
