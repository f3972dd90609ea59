"""From the rounds of every row to its figures and to the headline ratios: pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.settings import LIMITS, PEERS

Rows = Mapping[str, Mapping[str, Any]]

BUSY_SHARE = 0.1
"""Above this share of the CPU time for others, a measurement is called disturbed."""


def row_key(*, device: str, stem: str, way: str, workers: int | None) -> str:
    """Name a row, e.g. `cpu/stock/timm_task/workers=2`."""
    key = f"{device}/{stem}/{way}"
    return key if workers is None else f"{key}/workers={workers}"


def summarize_row(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put the rounds of a row together.

    Args:
        rounds: each a result with `images_per_second`, or an `error`.

    Returns:
        `status`, which is `failed` when any round was; median, min and max of the images per
        second of those that were not, or null; and the rounds.
    """
    speeds = [r["images_per_second"] for r in rounds if "error" not in r]
    summary = None
    if speeds:
        figures = {"median": statistics.median(speeds), "min": min(speeds), "max": max(speeds)}
        summary = {name: round(figure, 1) for name, figure in figures.items()}
    status = "ok" if speeds and len(speeds) == len(rounds) else "failed"
    return {"status": status, "images_per_second": summary, "rounds": list(rounds)}


def describe_failures(rows: Rows) -> list[str]:
    """Name every row that failed, with its last error and in how many rounds it did."""
    failures = []
    for key, row in rows.items():
        errors = [taken["error"] for taken in row["rounds"] if "error" in taken]
        if errors:
            failures.append(f"{key}: {errors[-1]}, in {len(errors)} of {len(row['rounds'])} rounds")
    return failures


def busy_measurements(rows: Rows) -> list[str]:
    """Name every measurement during which other processes took a fair share of the CPU."""
    return [
        f"{key}, round {number}: others took {taken['others_cpu_share']:.0%} of the CPU time"
        for key, row in rows.items()
        for number, taken in enumerate(row["rounds"], start=1)
        if (taken.get("others_cpu_share") or 0.0) > BUSY_SHARE
    ]


def best_of_rounds(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Return the highest speed of each round over some rows.

    A round in which one of them failed has none: the best of the rest might not be the best.
    """
    return [
        None if None in speeds else max(speed for speed in speeds if speed is not None)
        for speeds in zip(*rows, strict=True)
    ]


def ratio_of_rounds(
    numerators: Sequence[float | None], denominators: Sequence[float | None]
) -> list[float | None]:
    """Divide round by round, null where either is missing."""
    return [
        None if upper is None or lower is None else round(upper / lower, 4)
        for upper, lower in zip(numerators, denominators, strict=True)
    ]


def median_of_rounds(ratios: Iterable[float | None]) -> float | None:
    """Return the median of the rounds there are, null where there are none."""
    known = [ratio for ratio in ratios if ratio is not None]
    return round(statistics.median(known), 3) if known else None


def headline_ratios(rows: Rows) -> tuple[dict[str, list[float | None]], dict[str, float | None]]:
    """Compute the headline ratios round by round, and their medians.

    The names end in `_stock` or `_stem1`, and in `_cuda` for a GPU; `cached_vs_limit` alone is
    that of the stock stem. A ratio whose rows were not all asked for is left out, above all one
    against the best peer where a peer is missing.
    """
    speeds: dict[tuple[str, str], dict[str, list[list[float | None]]]] = {}
    for row in rows.values():
        ways = speeds.setdefault((row["device"], row["stem"]), {})
        rounds = [taken.get("images_per_second") for taken in row["rounds"]]
        ways.setdefault(row["way"], []).append(rounds)
    per_round = {}
    for (device, stem), ways in speeds.items():
        best = {way: best_of_rounds(rows_of_way) for way, rows_of_way in ways.items()}
        if all(peer in best for peer in PEERS):
            best["best_peer"] = best_of_rounds([best[peer] for peer in PEERS])
        if all(limit in best for limit in LIMITS):
            best["limit"] = best_of_rounds([best[limit] for limit in LIMITS])
        for own, other in (("cached", "best_peer"), ("live", "best_peer"), ("cached", "limit")):
            if f"ours_{own}" in best and other in best:
                ratio = ratio_of_rounds(best[f"ours_{own}"], best[other])
                per_round[_ratio_name(own, other, device=device, stem=stem)] = ratio
    return per_round, {name: median_of_rounds(ratio) for name, ratio in per_round.items()}


def _ratio_name(own: str, other: str, *, device: str, stem: str) -> str:
    stem = stem if stem == "stock" else f"stem{stem}"
    name = f"{own}_vs_{other}" + ("" if (other, stem) == ("limit", "stock") else f"_{stem}")
    return name if device == "cpu" else f"{name}_{device}"
