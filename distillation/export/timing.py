"""How fast exported models are beside each other on this machine.

Shapes: B batch, S = image_size.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from distillation.export.sessions import ExportedModel, choose_batch_size

LIMIT_SECONDS = 5.0
"""No further round is begun after this time."""
MIN_ROUNDS, MAX_ROUNDS = 3, 12
_SINGLES = 10
"""Images timed one by one for each model in a round."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """What a model takes on this machine; quantiles and median are over all rounds."""

    latency_ms_p50: float
    latency_ms_p95: float
    throughput_images_per_second: float
    """Of the median round."""
    throughput_batch_size: int


def measure_speeds(
    models: Mapping[str, ExportedModel],
    *,
    limit_seconds: float = LIMIT_SECONDS,
    max_rounds: int = MAX_ROUNDS,
) -> dict[str, Speed]:
    """Time models in turn: what else the machine does falls on all of them alike.

    In each round every model gets some images one by one and then one large batch, after a call of
    each kind that is not counted; the next round begins with the next model.

    Args:
        models: by name; all take images of one size.
        limit_seconds: no further round is begun after this time, but `MIN_ROUNDS` are run.
        max_rounds: enough for steady quantiles.
    """
    names = list(models)
    size = models[names[0]].image_size
    batch = _noise(choose_batch_size(size), size)
    single = batch[:1]
    latencies: dict[str, list[float]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for number in range(max(max_rounds, MIN_ROUNDS)):
        if number >= MIN_ROUNDS and time.perf_counter() - start > limit_seconds:
            break
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            model = models[name]
            model.run(single)
            latencies[name] += [_time(model, single) for _ in range(_SINGLES)]
            if number == 0:
                model.run(batch)
            seconds[name].append(_time(model, batch))
    return {
        name: Speed(
            latency_ms_p50=round(1e3 * float(np.quantile(latencies[name], 0.5)), 3),
            latency_ms_p95=round(1e3 * float(np.quantile(latencies[name], 0.95)), 3),
            throughput_images_per_second=round(len(batch) / float(np.median(seconds[name])), 1),
            throughput_batch_size=len(batch),
        )
        for name in names
    }


def _noise(count: int, size: int) -> NDArray[np.uint8]:
    """Make pixels (B, 3, S, S); what they show does not change what they take."""
    return np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def _time(model: ExportedModel, pixels: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    model.run(pixels)
    return time.perf_counter() - start
