"""All that needs a GPU, in one call of under nine minutes: `make gpu`, `python -m benchmarks.gpu`.

No DVC, no network. Its parts, what matters most first, each under a time limit of its own:

    tests    the tests that need a CUDA device (marker `gpu`)
    epochs   an epoch of 45,000 images, the teacher's outputs stored and live, by Muon and AdamW
    job      a teacher of 30 epochs, control and three experiments of 10 epochs, three seeds each
    ways     AdamW's epochs compiled or not, in bf16 or fp32, and the student's step alone
    peers    the same epoch by other people's systems

Every part writes `<part>.json` as it goes, and `summary.json` says which ended how: `done`,
`failed`, `cut off` at its limit, `not run`. A part that fails stops no other.
"""

# The standard library alone up here: a package that is missing is named before it is needed.
from __future__ import annotations

import argparse
import functools
import importlib.metadata
import os
import re
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

_PIPELINE_ALONE = ("dvc", "dvclive", "onnx", "onnxruntime", "onnxscript", "psutil")
"""Dependencies of the project that nothing here loads."""

LIMIT_SECONDS = {"tests": 100.0, "epochs": 150.0, "job": 400.0, "ways": 240.0, "peers": 120.0}

_SUMMARY = ("status", "reason", "passed", "failed", "skipped", "table", "seconds")
"""What `summary.json` takes of a part."""


def find_missing() -> list[str]:
    """Return the packages that are needed here and not installed."""
    return sorted(name for name in _read_needed() if _version_of(name) is None)


def find_outdated() -> list[str]:
    """Return the packages that are older than the project asks for, with both versions."""
    from packaging.specifiers import SpecifierSet  # one of timm's packages brings it along

    found = {name: (_version_of(name), bounds) for name, bounds in _read_needed().items()}
    return sorted(
        f"{name} {version} (needed: {bounds})"
        for name, (version, bounds) in found.items()
        if version is not None and not SpecifierSet(bounds).contains(version, prereleases=True)
    )


def _read_needed() -> dict[str, str]:
    """Return the packages that are needed here, with the versions that will do."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = [re.split(r"([^\w-].*)", needed)[:2] for needed in project["dependencies"]]
    return {name: bounds for name, bounds in parts if name not in _PIPELINE_ALONE}


def main(argv: list[str] | None = None) -> int:
    """Run the parts; the status is 1 when one is not done, 2 when nothing can be run here."""
    options = parse_options(argv)
    if missing := find_missing():
        _say(f"{', '.join(missing)}: not installed for {sys.executable}, and needed")
        return 2
    if outdated := find_outdated():
        _say(f"{', '.join(outdated)}: tried all the same; what fails may be due to that")
    from benchmarks import gpu_parts
    from benchmarks.hardware import find_devices, stamp
    from distillation.base.files import write_json
    from distillation.training.device import DeviceError
    from distillation.training.runtime import make_runtime

    if options.device not in find_devices():
        _say(f"no {options.device} device here; --device cpu --tiny tries the command itself")
        return 2
    try:
        make_runtime(compiles=options.compile, device_name=options.device)
    except DeviceError as error:
        _say(f"{error} (GPU_OPTIONS='--compile false')")
        return 2
    end = time.monotonic() + options.seconds
    folder: Path = options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    gpu_parts.log_of(options).unlink(missing_ok=True)
    not_run = {"status": "not run", "reason": "the time was used up, or the call ended"}
    parts: dict[str, Mapping[str, Any]] = dict.fromkeys(options.parts, not_run)
    given = {key: str(value) for key, value in vars(options).items()}
    origin = {**stamp(), "options": given}

    def keep(name: str, result: Mapping[str, Any]) -> None:
        parts[name] = {key: result[key] for key in _SUMMARY if key in result}
        write_json(folder / f"{name}.json", {**origin, **result})
        write_json(folder / "summary.json", {**origin, "parts": parts})

    for name in options.parts:
        start = time.monotonic()
        seconds = min(end - start, LIMIT_SECONDS[name])
        if seconds < gpu_parts.LEAST_SECONDS:
            keep(name, not_run)
            continue
        print(f"{name}: up to {seconds:.0f} s", file=sys.stderr, flush=True)
        run: gpu_parts.Part = getattr(gpu_parts, f"run_{name}")
        try:
            result = run(options, seconds, functools.partial(keep, name))
        except Exception as error:  # whatever it is, the other parts are worth having
            result = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        keep(name, {**result, "seconds": round(time.monotonic() - start, 1)})
        line = ", ".join(f"{key} {value}" for key, value in parts[name].items() if key != "table")
        print(f"{name}: {line}", file=sys.stderr, flush=True)
    print(folder / "summary.json")
    return 0 if all(part["status"] == "done" for part in parts.values()) else 1


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    names = list(LIMIT_SECONDS)
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", type=float, default=520.0, help="for all (default: 520)")
    parser.add_argument("--dataset", default="cifar10", help="of the job, as in params.yaml")
    parser.add_argument("--processes", type=int, help="seeds of the job at once")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--compile", choices=("auto", "false"), default="auto", help="of epochs and job"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: does the command run?")
    scratch = ROOT / ".scratch"
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path(os.environ.get("OUT") or scratch / "gpu"),
        help="for the JSON files (default: $OUT, or .scratch/gpu)",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=scratch / "gpu-job",
        help="of the job, which goes on there if it was cut off (default: .scratch/gpu-job)",
    )
    options = parser.parse_args(argv)
    # The parts run in the project's folder, wherever this was called.
    options.output_dir, options.run_dir = options.output_dir.resolve(), options.run_dir.resolve()
    return options


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _say(text: str) -> None:
    print(f"make gpu: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
