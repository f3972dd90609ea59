"""The parts of `python -m benchmarks.gpu`; which run, in which order, is decided there.

A part is handed the options and its limit in seconds, and returns its `status` with what it found:
`done`, `failed`, `cut off` where the limit ended it, `not run` where nothing could begin.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.hardware import ROOT
from benchmarks.processes import run_json, run_logged
from benchmarks.settings import PEERS
from distillation.base.params import load_params
from distillation.runs.environment import count_cores

LEAST_SECONDS = 5.0
"""With less time left nothing is begun."""

Keep = Callable[[Mapping[str, Any]], None]
"""Writes what a part has found so far."""

Part = Callable[[argparse.Namespace, float, Keep], dict[str, Any]]

_JOB = ("--teacher-epochs", "30", "--epochs", "10", "--seeds", "[0,1,2]")
_TINY_JOB = (
    *("--dataset", "digits", "--image-size", "8", "--crop-padding", "1"),
    *("--horizontal-flip", "false", "--teacher", "test_efficientnet", "--student", "test_resnet"),
    *("--teacher-epochs", "1", "--epochs", "1", "--seeds", "[0]"),
)


def log_of(options: argparse.Namespace) -> Path:
    """Return the file that holds what tests and trainings print."""
    return Path(options.output_dir / "log.txt")


def run_tests(options: argparse.Namespace, seconds: float, keep: Keep) -> dict[str, Any]:
    """Run the tests of the marker `gpu`; files without it are not loaded, as some need DVC."""
    if importlib.util.find_spec("pytest") is None:
        return {"status": "not run", "reason": "pytest is not installed"}
    files = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    ]
    report = options.output_dir / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider"]
    command += [f"--junit-xml={report}", *files]
    status = run_logged(command, log=log_of(options), timeout_seconds=seconds)
    if not report.is_file():
        return {"status": _status_of(status), "last_lines": _last_lines(options)}
    # One that was cut off has no name.
    elements = [case for case in ElementTree.parse(report).iter("testcase") if case.get("name")]
    cases = [_read_case(case) for case in elements]
    report.unlink()
    counts = {
        kind: sum(case["outcome"] == kind for case in cases)
        for kind in ("passed", "failed", "skipped")
    }
    return {"status": _status_of(status), **counts, "cases": cases}


def run_job(options: argparse.Namespace, seconds: float, keep: Keep) -> dict[str, Any]:
    """Train teacher, control and experiments; every finished method stands in accuracies.json."""
    accuracies, folder = options.output_dir / "accuracies.json", options.run_dir
    went_on = folder.exists()
    choices = _TINY_JOB if options.tiny else ("--dataset", options.dataset, *_JOB)
    command = [sys.executable, "-m", "distillation", *choices, "--experiment", "all"]
    command += ["--device", options.device, "--compile", options.compile]
    command += [] if options.processes is None else ["--processes", str(options.processes)]
    command += ["--run-dir", str(folder), "--results-path", str(accuracies)]
    keep({"status": "cut off", "command": command[1:]})  # unless what follows says otherwise
    accuracies.unlink(missing_ok=True)
    start = time.time()
    status = run_logged(command, log=log_of(options), timeout_seconds=seconds)
    durations, results = _read(folder / ".scratch" / "durations.json"), _read(accuracies)
    return {
        "status": _status_of(status),
        "command": command[1:],
        "went_on_where_another_call_was": went_on,
        "stage_seconds": {  # of this call; those that another one ran are not run again
            name: round(value["seconds"], 1)
            for name, value in durations.items()
            if value["ended"] >= start
        },
        "teacher": results.get("baseline", {}).get("teacher"),
        "table": results.get("summary"),
        **({} if status == 0 else {"last_lines": _last_lines(options)}),
    }


def run_epochs(options: argparse.Namespace, seconds: float, keep: Keep) -> dict[str, Any]:
    """Measure an epoch by the default optimizer, and by the AdamW of all other parts."""
    rows = [
        (way, "1", "--compile", options.compile, "--optimizer", optimizer)
        for optimizer in (load_params().optimizer, "adamw")
        for way in ("ours_cached", "ours_live")
    ]
    return _measure_rows(options, seconds, keep, rows)


def run_ways(options: argparse.Namespace, seconds: float, keep: Keep) -> dict[str, Any]:
    """Measure what the default's choices are worth, by AdamW."""
    arithmetic = [("bf16", "false"), ("fp32", "true"), ("fp32", "false")]
    rows: list[tuple[str, ...]] = [
        (way, "1", "--precision", precision, "--compile", compiles)
        for way in ("ours_cached", "ours_live")
        for precision, compiles in arithmetic
    ]
    rows += [("own_limit", "1"), ("limit", "1"), ("ours_cached", "stock"), ("ours_live", "stock")]
    return _measure_rows(options, seconds, keep, rows)


def run_peers(options: argparse.Namespace, seconds: float, keep: Keep) -> dict[str, Any]:
    """Measure other people's systems, with a DataLoader worker per core."""
    workers = "0" if options.tiny else str(count_cores())
    rows = [(way, "1", "--workers", workers) for way in PEERS]
    return _measure_rows(options, seconds, keep, rows)


def _measure_rows(
    options: argparse.Namespace, seconds: float, keep: Keep, rows: Sequence[tuple[str, ...]]
) -> dict[str, Any]:
    """Measure rows of way, stem and options, each in its own process, as long as there is time."""
    end = time.monotonic() + seconds
    sizes = ("128", "--epochs", "1") if options.tiny else ("45000", "--epochs", "3")
    found: dict[str, Any] = {}
    for way, stem, *further in rows[:1] if options.tiny else rows:
        name, left = " ".join((way, stem, *further)), end - time.monotonic()
        if left < LEAST_SECONDS:
            found[name] = {"status": "not run"}
            continue
        command = ["--way", way, "--stem", stem, "--device", options.device, "--images", *sizes]
        result = run_json("benchmarks.measure", *command, *further, timeout_seconds=left)
        found[name] = {"status": "failed" if "error" in result else "done", **result}
        text = result.get("error") or f"{result['seconds']:.2f} s an epoch"
        print(f"  {text}", file=sys.stderr, flush=True)
        keep({"status": "cut off", "rows": found})
    statuses = {row["status"] for row in found.values()}
    worst = next(kind for kind in ("failed", "not run", "done") if kind in statuses)
    return {"status": "cut off" if worst == "not run" else worst, "rows": found}


def _status_of(exit_status: int | None) -> str:
    return "cut off" if exit_status is None else "failed" if exit_status else "done"


def _read_case(case: ElementTree.Element) -> dict[str, Any]:
    outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    outcome = next((child for child in case if child.tag in outcomes), None)
    return {
        "name": f"{case.get('classname')}::{case.get('name')}",
        "seconds": float(case.get("time", 0)),
        "outcome": "passed" if outcome is None else outcomes[outcome.tag],
        "message": "" if outcome is None else (outcome.get("message") or "")[:2000],
    }


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _last_lines(options: argparse.Namespace) -> list[str]:
    """Return the end of the log, which is that of the command run last."""
    return log_of(options).read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
