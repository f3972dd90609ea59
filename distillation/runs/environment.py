"""What a training ran on: versions and hardware, to stand beside its numbers. Names no host."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillation.training.runtime import Runtime

_PACKAGES = ("torch", "timm")


def describe_environment(runtime: Runtime) -> dict[str, Any]:
    """Describe versions, device, CPU, threads and arithmetic, ready for JSON."""
    # Here and not above: who asks for the number of cores alone should not wait for torch.
    import torch

    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    is_cuda = runtime.device.type == "cuda"
    return {
        "python": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": count_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(runtime.device) if is_cuda else runtime.device.type,
        "precision": runtime.precision,
        "compiles": runtime.compiles,
    }


def cpu_model() -> str:
    """Return the CPU's name as the system has it, or `unknown`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def count_cores() -> int:
    """Return the number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
