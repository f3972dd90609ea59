"""One training step on one fixed batch: `python -m benchmarks.step --variant default`.

What the section `step` compares: each variant differs from `default`, this project's own step, in
one thing. The last line on standard output is the result as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.hardware import measure_rates
from benchmarks.settings import IMAGE_SIZE, LEARNING_RATE, NUM_CLASSES, SEED, STEMS
from distillation.base.allocator import keep_freed_memory
from distillation.models.creation import create_classifier
from distillation.models.layers import SmallMapConv2d
from distillation.training.optimizer import make_optimizer

_WARM_UP_STEPS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """How the step is run."""

    title: str
    allocator: bool = True
    channels_last: bool = True
    small_maps: bool = True
    compiles: bool = False
    bf16: bool = False
    fused_optimizer: bool = True
    batch_factor: float = 1.0
    num_threads: int | None = None


VARIANTS = {
    "default": Variant(title="this project's step"),
    "malloc": Variant(title="without the allocator's settings", allocator=False),
    "nchw": Variant(title="contiguous (NCHW) memory format", channels_last=False),
    "convolutions": Variant(title="convolutions of small maps left as they are", small_maps=False),
    "optimizer": Variant(title="AdamW not fused", fused_optimizer=False),
    "compile": Variant(title="torch.compile", compiles=True),
    "bf16": Variant(title="bf16 autocast", bf16=True),
    "half_batch": Variant(title="half the batch", batch_factor=0.5),
    "double_batch": Variant(title="twice the batch", batch_factor=2.0),
    "one_thread": Variant(title="one thread", num_threads=1),
}


def measure_step(
    variant: Variant, *, model_name: str, stem: str, batch_size: int, seconds: float
) -> dict[str, float]:
    """Take steps for some seconds.

    Returns:
        Median `images_per_second`, `start_seconds` (the first step, compilation included) and
        `gflop_per_image`, of forward and backward pass.
    """
    if variant.allocator:
        keep_freed_memory()
    if variant.num_threads is not None:
        torch.set_num_threads(variant.num_threads)
    model: nn.Module = create_classifier(
        model_name,
        num_classes=NUM_CLASSES,
        image_size=IMAGE_SIZE,
        seed=SEED,
        stem_stride=STEMS[stem],
    )
    if not variant.small_maps:
        for module in model.modules():
            if isinstance(module, SmallMapConv2d):
                module.__class__ = nn.Conv2d  # type: ignore[assignment]
    if not variant.channels_last:
        model = model.to(memory_format=torch.contiguous_format)
    optimizer = make_optimizer([model], learning_rate=LEARNING_RATE, weight_decay=0.0)
    if not variant.fused_optimizer:
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    size = round(batch_size * variant.batch_factor)
    generator = torch.Generator().manual_seed(SEED)
    shape = (size, IMAGE_SIZE, IMAGE_SIZE, 3)
    images = torch.randint(256, shape, generator=generator).to(torch.uint8).permute(0, 3, 1, 2)
    if not variant.channels_last:
        images = images.contiguous()
    labels = torch.randint(NUM_CLASSES, (size,), generator=generator)

    def compute_loss() -> torch.Tensor:
        return F.cross_entropy(model(images).float(), labels)

    with FlopCounterMode(display=False) as flops, torch.no_grad():
        compute_loss()
    loss_function: Callable[[], torch.Tensor] = compute_loss
    if variant.compiles:
        loss_function = torch.compile(compute_loss, dynamic=False)

    def step() -> float:
        start = time.perf_counter()
        context = torch.autocast("cpu", torch.bfloat16) if variant.bf16 else nullcontext()
        optimizer.zero_grad()
        with context:
            loss = loss_function()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - start

    start_seconds = step()
    for _ in range(_WARM_UP_STEPS):
        step()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(step())
    return {
        "images_per_second": size / statistics.median(times),
        "start_seconds": start_seconds,
        # The backward pass does the forward's work twice, for inputs and for weights; the
        # counter itself takes depthwise convolutions for dense ones there.
        "gflop_per_image": 3 * flops.get_total_flops() / size / 1e9,
    }


def main() -> None:
    """Measure and print the result on one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", allow_abbrev=False)
    parser.add_argument("--variant", choices=[*VARIANTS, "matrix_product"], default="default")
    parser.add_argument("--model", required=True, help="a timm name")
    parser.add_argument("--stem", choices=STEMS, default="stock")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=8.0)
    args = parser.parse_args()
    if args.variant == "matrix_product":
        print(json.dumps({"gflop_per_second": measure_rates()["matrix_product_gflop_per_second"]}))
        return
    result = measure_step(
        VARIANTS[args.variant],
        model_name=args.model,
        stem=args.stem,
        batch_size=args.batch,
        seconds=args.seconds,
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
