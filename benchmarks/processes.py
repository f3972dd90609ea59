"""Run a measuring module in a process of its own and read its result."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.hardware import ROOT

_TIMEOUT_SECONDS = 900.0


def run_json(module: str, *options: str) -> dict[str, Any]:
    """Run `python -m module` and parse the last line it prints.

    Returns:
        The result, or `error` with the last line of what went wrong.
    """
    print(f"{module} {' '.join(options)}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {_TIMEOUT_SECONDS:.0f} s"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"error": f"{lines[-1]} (exit status {done.returncode})"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def peak_memory_bytes() -> int:
    """Return the most memory that this process has had resident.

    What `getrusage` calls that is the parent's where the parent had more: a program that is started
    inherits it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kibibytes,) = re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) * 1024
