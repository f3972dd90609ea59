"""The section `layers`: the two ways to a depthwise convolution's weight gradient, over shapes.

The rule of `distillation.models.layers`, which way is taken for which shape, comes from this table.
The measurements run in one process of their own, `python -m benchmarks.layers`; its last line is
the result as JSON. Every shape has more data than the caches hold, as in a training step.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.processes import run_json
from benchmarks.settings import Settings
from distillation.base.allocator import keep_freed_memory
from distillation.models.layers import SmallMapConv2d, depthwise_conv2d, use_faster_layers

NOTES = (
    "Weight gradient of a depthwise convolution, channels_last, float32, in milliseconds: by "
    "torch's own kernel and by the Gram product of `distillation.models.layers`.",
    "`rule` says which of them a training takes. It goes by the shape alone, on every CPU.",
)
CHANNELS = 240
BATCHES = (8, 32, 128)
SIDES, STRIDES, SIZES = (3, 5, 7), (1, 2), (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
_OTHER_CHANNELS = ((96, 5, 2, 8), (144, 5, 2, 16), (672, 5, 1, 4), (1152, 3, 1, 2), (1152, 5, 1, 2))
"""Layers of the two default models: channels, side, stride, size."""
_QUICK_BATCHES, _QUICK_SIDES = (128,), (5,)
_CACHE_BYTES = 48e6
_MAX_BYTES = 400e6
_ROUNDS = 5


def measure_layers(settings: Settings) -> dict[str, Any]:
    """Measure all shapes in a process of its own."""
    result = run_json("benchmarks.layers", *(["--quick"] if settings.quick else []))
    if "error" in result:
        return {"notes": list(NOTES), "failures": [f"layers: {result['error']}"], "rows": []}
    return {"notes": list(NOTES), **result}


def list_shapes(*, quick: bool) -> list[tuple[int, int, int, int, int]]:
    """Return (batch, channels, side, stride, size) of what is measured."""
    batches, sides = (_QUICK_BATCHES, _QUICK_SIDES) if quick else (BATCHES, SIDES)
    shapes = [
        (batch, CHANNELS, side, stride, size)
        for side, stride, size, batch in itertools.product(sides, STRIDES, SIZES, batches)
        if batch * CHANNELS * size * size * 4 <= _MAX_BYTES / 2
    ]
    return shapes + [(128, *layer) for layer in ([] if quick else _OTHER_CHANNELS)]


def measure_shape(batch: int, channels: int, side: int, stride: int, size: int) -> dict[str, Any]:
    """Time both ways on one shape, in turns; the medians in milliseconds, and how far they part."""
    layer = nn.Conv2d(
        channels, channels, side, stride=stride, padding=side // 2, groups=channels, bias=False
    )
    copies = max(2, round(_CACHE_BYTES / (batch * channels * size * size * 4)))
    pairs = [_make_pair(layer, batch, size) for _ in range(min(copies, 64))]
    padding = (side // 2, side // 2)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "torch": layer,
        "gram": functools.partial(
            depthwise_conv2d, weight=layer.weight, stride=layer.stride, padding=padding
        ),
    }
    graphs = {name: [(way(x), g) for x, g in pairs] for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, graph in graphs.items():
            start = time.perf_counter()
            for output, gradient in graph:
                _weight_gradient(layer, output, gradient)
            seconds[name].append((time.perf_counter() - start) / len(graph))
    expected, found = (_weight_gradient(layer, *graphs[name][0]) for name in ways)
    times = {f"{name}_ms": round(1e3 * statistics.median(s), 4) for name, s in seconds.items()}
    use_faster_layers(layer)
    assert isinstance(layer, SmallMapConv2d)
    return {
        **{"batch": batch, "channels": channels, "side": side, "stride": stride, "size": size},
        **times,
        "ratio": round(times["torch_ms"] / times["gram_ms"], 3),
        "relative_error": float((found - expected).abs().max() / expected.abs().max()),
        "rule": "gram" if layer.takes_gram(pairs[0][0]) else "torch",
    }


def _make_pair(layer: nn.Conv2d, batch: int, size: int) -> tuple[Tensor, Tensor]:
    images = torch.randn(batch, layer.in_channels, size, size)
    images = images.to(memory_format=torch.channels_last)
    with torch.no_grad():
        return images, torch.randn_like(layer(images))


def _weight_gradient(layer: nn.Conv2d, output: Tensor, gradient: Tensor) -> Tensor:
    return torch.autograd.grad(output, layer.weight, gradient, retain_graph=True)[0]


def main() -> None:
    """Measure and print the result on one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    keep_freed_memory()
    rows = [measure_shape(*shape) for shape in list_shapes(quick=quick)]
    print(json.dumps({"rows": rows, "num_threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
