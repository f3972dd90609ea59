"""The section `prepare`: images per second of data preparation, against Pillow's own limit.

`python -m benchmarks.prepare --images 100000 --side 224` measures one number of images in its own
process: a folder of JPEG pictures is prepared as the stage does it, in rounds that alternate with
as many processes as there are cores that only open, convert and resize the same files.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.hardware import ROOT
from benchmarks.processes import peak_memory_bytes, run_json
from benchmarks.settings import Settings
from distillation.base.params import load_params
from distillation.runs.environment import count_cores
from distillation.sources.prepare import prepare

IMAGE_SIZE, NUM_CLASSES = 224, 10
SIDES = {256: 4_000, 1024: 1_000}
"""Files by the side of the pictures in them."""
QUICK_SHARE = 4
NOTES = (
    f"JPEG pictures, square, to {IMAGE_SIZE}×{IMAGE_SIZE}. Ours: list, read, decode, scale, hash, "
    "write, split and fingerprint. Pillow: read, decode and scale, in as many processes as cores.",
    "The rounds alternate.",
)
_NUM_PICTURES = 250  # different ones; further files are hard links to them


def measure_prepare(settings: Settings) -> dict[str, Any]:
    """Measure a folder of pictures of each size."""
    rows: list[dict[str, Any]] = []
    ratios, failures = {}, []
    for side, number in SIDES.items():
        images = number // (QUICK_SHARE if settings.quick else 1)
        options = ("--images", str(images), "--side", str(side), "--rounds", str(settings.rounds))
        result = run_json("benchmarks.prepare", *options)
        rows.append(result)
        if "error" in result:
            failures.append(f"{side} pixels: {result['error']}")
        else:
            ratios[f"prepare_vs_pillow_{side}"] = result["ratio"]
    return {"notes": list(NOTES), "rows": rows, "ratios": ratios, "failures": failures}


def measure(*, num_images: int, side: int, num_rounds: int) -> dict[str, Any]:
    """Prepare a folder and run Pillow alone over it, in turns; the ratio is that of the best."""
    ours, limits = [], []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = Path(temporary) / "pictures"
        files = make_pictures(folder, num_images, side)
        changes = {"dataset": str(folder), "image_size": IMAGE_SIZE, "crop_padding": 0}
        params = load_params(ROOT / "params.yaml", **changes)
        for _ in range(num_rounds):
            start = time.perf_counter()
            prepare(params, Path(temporary) / "prepared", raw_directory=Path(temporary))
            ours.append(num_images / (time.perf_counter() - start))
            limits.append(measure_pillow(files))
    return {
        "images": num_images,
        "side": side,
        "cores": count_cores(),
        "images_per_second": round(max(ours)),
        "pillow_images_per_second": round(max(limits)),
        "ratio": round(max(ours) / max(limits), 3),
        "rounds": [[round(rate) for rate in pair] for pair in zip(ours, limits, strict=True)],
        "peak_memory_gb": round(peak_memory_bytes() / 1e9, 2),
    }


def make_pictures(folder: Path, number: int, side: int) -> list[Path]:
    """Write JPEG pictures of smooth noise, by class."""
    files: list[Path] = []
    for index in range(number):
        path = folder / f"class {index % NUM_CLASSES}" / f"{index:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index < _NUM_PICTURES:
            coarse = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
            picture.save(path, quality=90)
        else:
            os.link(files[index % _NUM_PICTURES], path)
        files.append(path)
    return files


def measure_pillow(files: list[Path]) -> float:
    """Return images per second of Pillow in as many processes as cores."""
    cores = count_cores()
    with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
        list(pool.map(_decode, [files[:1]] * cores))  # the processes are there
        start = time.perf_counter()
        list(pool.map(_decode, [files[first : first + 50] for first in range(0, len(files), 50)]))
        return len(files) / (time.perf_counter() - start)


def _decode(files: list[Path]) -> None:
    for path in files:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
        np.asarray(small)


def main() -> None:
    """Read the options, measure and print one line of JSON."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    print(json.dumps(measure(num_images=args.images, side=args.side, num_rounds=args.rounds)))


if __name__ == "__main__":
    main()
