"""What a section was measured on: machine, versions, commit, date. Names no host and no path."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distillation.runs.environment import count_cores, cpu_model, run_git

ROOT = Path(__file__).resolve().parents[1]

_PACKAGES = ("torch", "torchvision", "timm", "torchdistill", "numpy", "pillow")
# Variables that change speed without a trace in the code.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "LD_PRELOAD",
    "MALLOC_CONF",
    "CUDA_VISIBLE_DEVICES",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
)

_STATUS_WITHOUT_RESULTS = (
    *("status", "--porcelain", "--untracked-files=no", "--", "."),
    ":(exclude)benchmarks/results.*",
)


def find_devices() -> tuple[str, ...]:
    """Return `cpu`, and `cuda` where there is a GPU."""
    import torch

    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def describe_hardware() -> dict[str, Any]:
    """Describe the CPU, the memory and the GPUs (none: an empty list)."""
    import torch

    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        "cpu": cpu_model(),
        "cores": count_cores(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        **measure_rates(),
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
        "system": f"{platform.system()} {platform.machine()}",
    }


def kind_of(hardware: Mapping[str, Any]) -> str:
    """Return which kind of CPU a section was measured on: its model and its instructions."""
    return f"{hardware['cpu']}, {hardware['instructions']}"


def measure_rates() -> dict[str, float]:
    """Measure what the CPU can do at best: a float32 matrix product, and copying in memory."""
    import torch

    size, num_floats = 2048, 2**24
    first, second = torch.randn(size, size), torch.randn(size, size)
    source, target = torch.randn(num_floats), torch.empty(num_floats)
    product_seconds = _best_seconds(lambda: first @ second)
    copy_seconds = _best_seconds(lambda: target.copy_(source))
    return {
        "matrix_product_gflop_per_second": round(2 * size**3 / product_seconds / 1e9, 1),
        # Read and written.
        "copy_gb_per_second": round(2 * source.nbytes / copy_seconds / 1e9, 1),
    }


def _best_seconds(function: Callable[[], object], *, rounds: int = 10) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def describe_versions() -> dict[str, str | None]:
    """Return the version of Python and of every package that matters; null where not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def stamp() -> dict[str, Any]:
    """Say when and on what: date, commit, hardware, versions, environment."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": run_git(ROOT, "rev-parse", "HEAD"),
        "uncommitted_changes": bool(run_git(ROOT, *_STATUS_WITHOUT_RESULTS)),
        "hardware": describe_hardware(),
        "versions": describe_versions(),
        "environment": {
            name: Path(os.environ[name]).name for name in _VARIABLES if name in os.environ
        },
    }


class OtherLoad:
    """How much of the machine's CPU time others take while child processes are measured.

    Others are every process but this one's children, and neighbours on the same host (stolen
    time). On a busy machine the figures of a training that uses all cores collapse.
    """

    def __init__(self) -> None:
        self._start = self._read()

    def share(self) -> float | None:
        """Return the share since this was made; null where the system does not tell."""
        end = self._read()
        if self._start is None or end is None:
            return None
        busy, total = (after - before for before, after in zip(self._start, end, strict=True))
        return round(max(busy, 0.0) / total, 4) if total > 0 else None

    def _read(self) -> tuple[float, float] | None:
        try:
            line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
        except OSError:
            return None
        # user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in the first.
        ticks = [float(field) for field in line.split()[1:9]]
        total = sum(ticks) / os.sysconf("SC_CLK_TCK")
        idle = sum(ticks[3:5]) / os.sysconf("SC_CLK_TCK")
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return total - idle - own, total
