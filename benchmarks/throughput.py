"""The section `throughput`: images per second of one epoch, this project's ways and others'.

Every measurement is a process of its own, one after another. A round measures every row once, and
every second round runs backwards, so that a machine that gets slower does so for all rows alike.
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import time
from typing import Any, NoReturn

from benchmarks.figures import (
    busy_measurements,
    describe_failures,
    headline_ratios,
    row_key,
    summarize_row,
)
from benchmarks.hardware import ROOT, OtherLoad
from benchmarks.settings import WAYS, Settings, count_images

NOTES = (
    "Weights and images are random: speed depends on neither.",
    "The faster a way, the more images its epoch has, so that all are timed for about as long.",
    "Models, data, cache and the first steps are made before the clock starts; starting the "
    "DataLoader's workers is part of the epoch.",
    "A ratio is taken within each round, against the best peer of that round over its numbers of "
    "workers; the figure is the median over the rounds.",
    "Peak memory is the training process's; DataLoader workers come on top.",
)
_START_SECONDS = 120.0
_TIMEOUT_FACTOR = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row of the table, as it is asked for."""

    way: str
    stem: str
    device: str
    workers: int | None
    """DataLoader workers; None for a way without a DataLoader."""
    num_images: int
    batch_size: int

    @property
    def key(self) -> str:
        """The row's name in the results."""
        return row_key(device=self.device, stem=self.stem, way=self.way, workers=self.workers)

    def to_command(self) -> list[str]:
        """Return the command that measures it."""
        command = [sys.executable, "-m", "benchmarks.measure", "--way", self.way]
        command += ["--stem", self.stem, "--device", self.device]
        command += ["--images", str(self.num_images), "--batch", str(self.batch_size)]
        return [*command, "--workers", str(self.workers or 0)]


def plan_rows(settings: Settings) -> list[Measurement]:
    """List what one round measures; rows that are compared stand next to each other."""
    return [
        Measurement(
            way=way,
            stem=stem,
            device=device,
            workers=workers,
            num_images=count_images(
                way,
                device=device,
                stem=stem,
                seconds=settings.seconds,
                batch_size=settings.batch_size,
            ),
            batch_size=settings.batch_size,
        )
        for device in settings.devices
        for stem in settings.stems
        for way in settings.rows
        for workers in (settings.workers if WAYS[way].peer else (None,))
    ]


def measure_throughput(settings: Settings) -> dict[str, Any]:
    """Measure all rows in interleaved rounds.

    Returns:
        `rows` with every round of each, `ratios` and their rounds, `busy`, the measurements
        others disturbed, and `failures`.
    """
    plan = plan_rows(settings)
    taken: dict[str, list[dict[str, Any]]] = {measurement.key: [] for measurement in plan}
    for number in range(settings.rounds):
        for measurement in plan if number % 2 == 0 else reversed(plan):
            result = run_measurement(measurement, seconds=settings.seconds)
            taken[measurement.key].append(result)
            done = sum(map(len, taken.values()))
            outcome = result.get("error") or f"{result['images_per_second']:.0f} images/s"
            _say(f"[{done}/{settings.rounds * len(plan)}] {measurement.key}: {outcome}")
    rows = {
        measurement.key: {
            **dataclasses.asdict(measurement),
            "title": WAYS[measurement.way].title,
            **summarize_row(taken[measurement.key]),
        }
        for measurement in plan
    }
    ratio_rounds, ratios = headline_ratios(rows)
    return {
        "notes": list(NOTES),
        "rows": rows,
        "ratios": ratios,
        "ratio_rounds": ratio_rounds,
        "busy": busy_measurements(rows),
        "failures": describe_failures(rows),
    }


def run_measurement(measurement: Measurement, *, seconds: float) -> dict[str, Any]:
    """Measure one row once, in a process of its own; a failure is a result with an `error`."""
    timeout = _START_SECONDS + _TIMEOUT_FACTOR * seconds
    start, load = time.perf_counter(), OtherLoad()
    try:
        done = subprocess.run(
            measurement.to_command(), cwd=ROOT, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {timeout:.0f} s"}
    result = read_output(done.returncode, done.stdout, done.stderr)
    elapsed = round(time.perf_counter() - start, 3)
    return {**result, "process_seconds": elapsed, "others_cpu_share": load.share()}


def read_output(returncode: int, stdout: str, stderr: str) -> dict[str, Any]:
    """Turn what a measuring process left behind into its result or into its last error line."""
    if returncode != 0:
        error = _last_line(stderr) or "no message"
        return {"error": f"{error.replace(str(ROOT), '.')} (exit status {returncode})"}
    line = _last_line(stdout)
    try:
        result = json.loads(line, parse_constant=_refuse)
        speed = float(result["images_per_second"])
    except (ValueError, KeyError, TypeError):
        return {"error": f"no result on the last line of the output: {line!r}"}
    if not (math.isfinite(speed) and speed > 0):
        return {"error": f"images_per_second is {speed}"}
    return dict(result)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
