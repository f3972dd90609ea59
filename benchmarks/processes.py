"""Run a measuring module, or any command, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.hardware import ROOT

_TIMEOUT_SECONDS = 900.0
_GRACE_SECONDS = 5.0


def run_json(
    module: str, *options: str, timeout_seconds: float = _TIMEOUT_SECONDS
) -> dict[str, Any]:
    """Run `python -m module` and parse the last line it prints.

    Args:
        module: what to run.
        options: its command line.
        timeout_seconds: when to end it.

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
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {timeout_seconds:.0f} s"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"error": f"{lines[-1]} (exit status {done.returncode})"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def run_logged(command: Sequence[str], *, log: Path, timeout_seconds: float) -> int | None:
    """Run a command whose output is added to a file; at its limit it ends, with all it has started.

    Returns:
        The exit status; None where the time was up.
    """
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            return process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)  # pytest still writes its report
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_SECONDS)
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def run_watched(command: Sequence[str], *, cwd: Path) -> int:
    """Run `python -m command` and return the most private memory one of its processes had, bytes.

    That is RssAnon of Linux, looked at every 50 ms: pages of files, mapped ones too, the kernel can
    take back at any time.
    """
    import psutil  # DVC brings it, which a machine that only measures a GPU may lack

    print(" ".join(command), file=sys.stderr, flush=True)
    most = 0
    with psutil.Popen([sys.executable, "-m", *command], cwd=cwd, stdout=sys.stderr) as process:
        while process.poll() is None:
            for one in [process, *process.children(recursive=True)]:
                with contextlib.suppress(OSError):
                    status = Path(f"/proc/{one.pid}/status").read_text(encoding="ascii")
                    kibibytes = re.findall(r"^RssAnon:\s*(\d+) kB$", status, re.MULTILINE)
                    most = max([most, *(1024 * int(number) for number in kibibytes)])
            time.sleep(0.05)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with exit status {process.returncode}")
    return most


def peak_memory_bytes() -> int:
    """Return the most memory that this process has had resident.

    What `getrusage` calls that is the parent's where the parent had more: a program that is started
    inherits it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kibibytes,) = re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) * 1024
