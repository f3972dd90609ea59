"""The section `step`: the student's step against the machine, and what changes it.

Every variant of `benchmarks.step` in a process of its own, in interleaved rounds on the CPU; ratios
are taken within a round.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.processes import run_json
from benchmarks.settings import STUDENT, TEACHER, Settings
from benchmarks.step import VARIANTS

NOTES = (
    "One fixed batch, labels only; each line differs from the first in one thing.",
    "The ratio is taken within each round against the first line; the figure is the median.",
    "`start` is the first step: for torch.compile from its cache on disk after the first round.",
)
_QUICK_VARIANTS = ("default", "malloc", "convolutions")
_TEACHER_VARIANTS = ("default", "malloc", "compile")


def measure_steps(settings: Settings) -> dict[str, Any]:
    """Measure the variants of the step."""
    seconds = settings.seconds / 4
    names = [
        (model, stem, variant)
        for model, variants in ((STUDENT, tuple(VARIANTS)), (TEACHER, _TEACHER_VARIANTS))
        for stem in settings.stems
        for variant in variants
        if not settings.quick or (model == STUDENT and variant in _QUICK_VARIANTS)
    ]
    rounds: dict[tuple[str, str, str], list[dict[str, Any]]] = {name: [] for name in names}
    rates, failures = [], []
    for number in range(settings.rounds):
        product = run_json("benchmarks.step", "--variant", "matrix_product", "--model", STUDENT)
        if "error" in product:
            failures.append(f"matrix product: {product['error']}")
        else:
            rates.append(product["gflop_per_second"])
        for name in names if number % 2 == 0 else reversed(names):
            model, stem, variant = name
            options = ["--model", model, "--stem", stem, "--variant", variant]
            options += ["--batch", str(settings.batch_size), "--seconds", str(seconds)]
            result = run_json("benchmarks.step", *options)
            rounds[name].append(result)
            if "error" in result:
                failures.append(f"{model}/{stem}/{variant}: {result['error']}")
    rate = statistics.median(rates) if rates else None
    return {
        "notes": list(NOTES),
        "matrix_product_gflop_per_second": None if rate is None else round(rate, 1),
        "rows": [_summarize(name, rounds, rate=rate) for name in names],
        "failures": failures,
    }


def _summarize(
    name: tuple[str, str, str],
    rounds: dict[tuple[str, str, str], list[dict[str, Any]]],
    *,
    rate: float | None,
) -> dict[str, Any]:
    model, stem, variant = name
    pairs = [
        (result, base)
        for result, base in zip(rounds[name], rounds[model, stem, "default"], strict=True)
        if "error" not in result and "error" not in base
    ]
    row: dict[str, Any] = {
        "model": model,
        "stem": stem,
        "variant": variant,
        "title": VARIANTS[variant].title,
        "rounds": rounds[name],
    }
    if pairs:
        speed = statistics.median(result["images_per_second"] for result, _ in pairs)
        work = speed * pairs[0][0]["gflop_per_image"]
        ratio = statistics.median(r["images_per_second"] / b["images_per_second"] for r, b in pairs)
        row |= {
            "images_per_second": round(speed, 1),
            "ratio": round(ratio, 3),
            "start_seconds": round(statistics.median(r["start_seconds"] for r, _ in pairs), 1),
            "gflop_per_second": round(work, 1),
            "share_of_matrix_product": round(work / rate, 3) if rate else None,
        }
    return row
