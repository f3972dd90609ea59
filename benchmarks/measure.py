"""One measurement in this process: `python -m benchmarks.measure --way limit --images 1024`.

The last line on standard output is the result as JSON. Making the models, the data and the
warm-up steps are not timed; the epoch is, from the first batch requested to the end of
its loop.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import resource
import sys
import time
from typing import Any

from benchmarks.processes import peak_memory_bytes
from benchmarks.settings import STEMS, WAYS

OWN_WAYS = {"ours_cached": True, "ours_live": False}
"""The project's own ways, with whether the teacher's outputs are cached."""


def measure(
    way: str,
    *,
    stem: str,
    num_images: int,
    batch_size: int,
    num_workers: int,
    device: str,
    epochs: int = 1,
    precision: str = "auto",
    compiles: str = "auto",
    optimizer: str = "adamw",
) -> dict[str, Any]:
    """Run one way in this process.

    The last four concern this project's ways alone; precision and compiles its limit too.

    Returns:
        `images_per_second`, `seconds` and whatever else the way reports, with what was asked for
        and the peak of the resident memory. `peak_rss_worker_bytes` is the largest DataLoader
        worker's, which shares pages with its parent.

    Raises:
        ArithmeticError: the training went wrong; its speed would mean nothing.
    """
    if way == "own_limit":
        result = importlib.import_module("benchmarks.ours").measure_limit(
            stem_stride=STEMS[stem],
            num_images=num_images,
            batch_size=batch_size,
            device_name=device,
            precision=precision,
            compiles=compiles,
        )
    elif way in OWN_WAYS:
        # The project chooses its device by this variable.
        os.environ["DISTILLATION_DEVICE"] = device
        result = importlib.import_module("benchmarks.ours").measure(
            stem_stride=STEMS[stem],
            num_images=num_images,
            batch_size=batch_size,
            cached=OWN_WAYS[way],
            epochs=epochs,
            precision=precision,
            compiles=compiles,
            optimizer=optimizer,
        )
    else:
        result = _measure_peer(
            way,
            stem=stem,
            num_images=num_images,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
        )
    if not math.isfinite(result.get("loss", 0.0)):
        raise ArithmeticError(f"{way}: the loss became {result['loss']}")
    if num_workers:
        workers = resource.getrusage(resource.RUSAGE_CHILDREN)
        result["peak_rss_worker_bytes"] = workers.ru_maxrss * 1024
    return {"num_images": num_images, **result, "peak_rss_bytes": peak_memory_bytes()}


def _measure_peer(
    way: str, *, stem: str, num_images: int, batch_size: int, num_workers: int, device: str
) -> dict[str, Any]:
    import torch

    from benchmarks import peers
    from benchmarks.workload import Job

    job = Job(
        stem_stride=STEMS[stem],
        num_images=num_images,
        batch_size=batch_size,
        num_workers=num_workers,
        device=torch.device(device),
    )
    epoch: peers.Epoch = getattr(peers, way)(job)
    on_cuda = job.device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    loss = epoch()
    if on_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    result = {
        "images_per_second": num_images / seconds,
        "seconds": seconds,
        "num_steps": job.num_steps,
        "loss": loss,
        "num_threads": torch.get_num_threads(),
    }
    if on_cuda:
        result["peak_cuda_bytes"] = torch.cuda.max_memory_allocated()
    return result


def main(argv: list[str] | None = None) -> int:
    """Measure and print the result on one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", allow_abbrev=False)
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--stem", choices=STEMS, default="stock")
    parser.add_argument("--images", type=int, required=True, help="images of the epoch")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0, help="DataLoader workers")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    own = parser.add_argument_group("this project's ways")
    own.add_argument("--epochs", type=int, default=1, help="the last one is measured")
    own.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    own.add_argument("--compile", choices=("auto", "true", "false"), default="auto")
    own.add_argument("--optimizer", default="adamw", help="its name in timm (default: %(default)s)")
    args = parser.parse_args(argv)
    result = measure(
        args.way,
        stem=args.stem,
        num_images=args.images,
        batch_size=args.batch,
        num_workers=args.workers,
        device=args.device,
        epochs=args.epochs,
        precision=args.precision,
        compiles=args.compile,
        optimizer=args.optimizer,
    )
    print(json.dumps(result, allow_nan=False), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
