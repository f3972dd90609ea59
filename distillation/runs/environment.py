"""What a training ran on: code, versions, hardware, to stand beside its numbers. Names no host."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillation.training.runtime import Runtime

_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("distillation", "stages", "dvc.yaml", "requirements.txt")
_PACKAGES = ("torch", "timm")


def describe_environment(runtime: Runtime) -> dict[str, Any]:
    """Describe commit, versions, devices, CPU, threads and arithmetic, ready for JSON."""
    # Here and not above: who asks for the number of cores alone should not wait for torch.
    import torch

    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    is_cuda = runtime.device.type == "cuda"
    return {
        **describe_commit(),
        "python": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": count_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(runtime.device) if is_cuda else runtime.device.type,
        "devices": runtime.ranks.size,
        "precision": runtime.precision,
        "compiles": runtime.compiles_steps,
    }


def describe_commit(root: Path = _ROOT) -> dict[str, Any]:
    """Describe the commit of the code, ready for JSON.

    It is the last that changed the code: a training that is repeated after a commit of results or
    pages leaves the same bytes.

    Args:
        root: the folder that holds `distillation`.

    Returns:
        `commit`; `commit_date`; and `uncommitted_changes`, whether the code differs from it: new
        files count, parameters and results do not. Empty where git does not know the code.
    """
    # A package that is installed below somebody's repository is none of its files.
    if run_git(root, "ls-files", "--error-unmatch", "distillation/__init__.py") is None:
        return {}
    last = ("log", "-1", "--no-show-signature", "--format=%H %cI")
    commit = run_git(root, *last, "--", *_CODE)
    changes = run_git(root, "status", "--porcelain", "--", *_CODE)
    if not commit or changes is None:
        return {}
    name, date = commit.split()
    return {"commit": name, "commit_date": date, "uncommitted_changes": bool(changes)}


def run_git(root: Path, *arguments: str) -> str | None:
    """Return what a git command that only reads prints in a folder; None where it fails."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


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
