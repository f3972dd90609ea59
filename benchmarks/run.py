"""Measure sections, write `results.json` and `results.md`, print the latter.

A section is a function of `SECTIONS` that is handed the settings and returns a dictionary; see
`benchmarks.report` for the keys that mean something everywhere, and its `TABLES` for how one is
shown. Each is stamped with its date, commit and hardware and replaces only itself in the results.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.growth import measure_growth
from benchmarks.hardware import ROOT, find_devices, stamp
from benchmarks.layers import measure_layers
from benchmarks.pipeline import measure_pipeline
from benchmarks.prepare import measure_prepare
from benchmarks.report import merge_section, render
from benchmarks.settings import STEMS, WAYS, Settings, default_workers
from benchmarks.steps import measure_steps
from benchmarks.throughput import measure_throughput
from benchmarks.views import measure_views
from distillation.base.files import write_json, write_text

SECTIONS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "throughput": measure_throughput,
    "step": measure_steps,
    "layers": measure_layers,
    "views": measure_views,
    "growth": measure_growth,
    "prepare": measure_prepare,
    "pipeline": measure_pipeline,
}

QUICK_ROUNDS, ROUNDS = 1, 3
QUICK_SECONDS, SECONDS = 3.0, 8.0
QUICK_WORKERS = (0,)


def parse_settings(argv: list[str] | None) -> tuple[Settings, list[str], Path]:
    """Read the command line.

    Returns:
        The settings, the sections to measure and the folder to write to.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="all of it in under five minutes")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=WAYS,
        default=list(WAYS),
        metavar="NAME",
        help=f"ways to measure: {', '.join(WAYS)}",
    )
    parser.add_argument("--stems", nargs="+", choices=STEMS, default=list(STEMS))
    parser.add_argument("--devices", nargs="+", choices=("cpu", "cuda"), help="default: all found")
    parser.add_argument(
        "--workers",
        nargs="+",
        type=_count,
        metavar="N",
        help="numbers of DataLoader workers the peers are tried with; "
        f"default {default_workers()}, quick {QUICK_WORKERS}",
    )
    parser.add_argument("--rounds", type=_positive, help=f"default {ROUNDS}, quick {QUICK_ROUNDS}")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"about how long an epoch takes; default {SECONDS:g}, quick {QUICK_SECONDS:g}",
    )
    parser.add_argument("--batch", type=_positive, default=128, metavar="N")
    parser.add_argument("--output-dir", type=Path, default=ROOT / "benchmarks", metavar="PATH")
    args = parser.parse_args(argv)
    found = find_devices()
    missing = [device for device in args.devices or () if device not in found]
    if missing:
        parser.error(f"--devices: got {' '.join(missing)}; found: {' '.join(found)}")
    if args.seconds is not None and not args.seconds > 0:
        parser.error(f"--seconds: got {args.seconds:g}; allowed: above 0")
    workers = args.workers or (QUICK_WORKERS if args.quick else default_workers())
    settings = Settings(
        quick=args.quick,
        rounds=args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS),
        seconds=args.seconds or (QUICK_SECONDS if args.quick else SECONDS),
        batch_size=args.batch,
        rows=tuple(way for way in WAYS if way in args.rows),
        stems=tuple(stem for stem in STEMS if stem in args.stems),
        devices=tuple(args.devices or found),
        workers=tuple(sorted(set(workers))),
    )
    return settings, args.sections, args.output_dir


def main(argv: list[str] | None = None) -> int:
    """Measure, write and print; the status is 1 when anything could not be measured."""
    settings, names, folder = parse_settings(argv)
    path = folder / "results.json"
    results = read_results(path)
    failures = []
    for name in names:
        origin = stamp()
        start = time.perf_counter()
        section = SECTIONS[name](settings)
        seconds = round(time.perf_counter() - start, 1)
        section = {**origin, "settings": settings.to_dict(), "seconds": seconds, **section}
        failures += section.get("failures", [])
        results = merge_section(results, name, section)
        write_json(path, results)
        write_text(folder / "results.md", render(results))
    print(render(results), end="")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def read_results(path: Path) -> dict[str, Any]:
    """Read the results there are, so that sections not measured now are kept."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"got {text}; allowed: 0 or more")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text}; allowed: 1 or more")
    return value
