"""What a node does for one variant: clone, `dvc exp run`, push, clean up.

Ray sends this module to the nodes by value: it imports the standard library alone, and needs of a
node git and, beside the interpreter of Ray's workers, the project's packages.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

# Runs a command as its child. All that descends from it is killed once the command has ended, or
# standard input is closed: when Ray's worker calls it off, is killed or ends with its node. Ray
# kills the children of such a worker, and theirs live on: so the guard is one of theirs.
_GUARD = """
import ctypes, os, subprocess, sys, threading
import psutil

if guard := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(guard, 0)[1]) % 256)

PR_SET_CHILD_SUBREAPER = 36  # orphans become children of this process, not of init
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

def is_running(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

def end(status):
    while running := [*filter(is_running, psutil.Process().children(recursive=True))]:
        for process in running:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
    os._exit(status)

def end_with_the_worker():
    os.read(0, 1)
    end(137)

command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=end_with_the_worker, daemon=True).start()
status = command.wait()
end(status if status >= 0 else 128 - status)
"""

_POLL_SECONDS = 0.2


class _CommandError(Exception):
    """A command has failed."""


def run_variant(
    *,
    name: str,
    overrides: Sequence[str],
    url: str,
    commit: str,
    folder: str,
    ref: str,
    work_dir: str | None,
) -> dict[str, Any]:
    """Run a variant in a clone of its own and push it.

    The clone is removed, unless the variant fails: then it is left for somebody to look at.

    Args:
        name: the name of the experiment.
        overrides: parameters, as for -S.
        url: where to clone from and push to.
        commit: what to check out.
        folder: the pipeline's folder within the repository.
        ref: git's name of the experiment.
        work_dir: where clones lie; None is the system's folder for temporary files.

    Returns:
        `node`: the node's name; `seconds`: how long it took; `error`: what went wrong, or None.
    """
    start = time.monotonic()
    node = socket.gethostname()
    error = None
    try:
        if work_dir is not None:
            Path(work_dir).mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(prefix="sweep-", dir=work_dir))
    except OSError as problem:
        error = f"{problem.filename}: no clone can be made there ({problem.strerror}, on {node})"
        return {"node": node, "seconds": time.monotonic() - start, "error": error}
    log = root / "log.txt"
    print(f"runs on {node}, log in {log}", flush=True)  # Ray puts the variant's name before it
    dvc = [sys.executable, "-m", "dvc"]
    options = [part for override in overrides for part in ("-S", override)]
    try:
        with log.open("w", encoding="utf-8") as output:
            _run(["git", "clone", "--quiet", "--no-checkout", url, "clone"], root, output)
            _run(["git", "checkout", "--quiet", "--detach", commit], root / "clone", output)
            clone = root / "clone" / folder
            # A node may have died when all was done: then there is nothing left to do.
            if _run(["git", "ls-remote", "--exit-code", url, ref], clone, output, allowed=(0, 2)):
                # Further methods are no dependencies by name, so --pull would not bring them.
                _run([*dvc, "pull", "--allow-missing", "distill"], clone, output)
                run = [*dvc, "exp", "run", "--pull", "--allow-missing", *options, "-n", name]
                _run(run, clone, output)
                # Files first: an experiment that the git remote knows is a whole one.
                _run([*dvc, "push"], clone, output)
                _run([*dvc, "exp", "push", "--no-cache", "origin", name], clone, output)
    except _CommandError:
        error = f"{find_sentence(log.read_text(encoding='utf-8', errors='replace'))} ({node}:{log})"
    except BaseException:  # it was called off
        shutil.rmtree(root, ignore_errors=True)
        raise
    if error is None:
        shutil.rmtree(root, ignore_errors=True)
    return {"node": node, "seconds": time.monotonic() - start, "error": error}


def find_sentence(log: str) -> str:
    """Return what a log says went wrong, in one line: a stage's own words before DVC's."""
    if stage := re.search(r"^error: (.+)", log, re.MULTILINE):
        return stage[1]
    if dvc := re.findall(r"^ERROR: ((?:.+\n?)+)", log, re.MULTILINE):
        words = " ".join(dvc[-1].split())
        is_missing = "neither locally nor on remote" in log
        return f"{words}; dvc push where the commit was run" if is_missing else words
    return (log.strip().splitlines() or ["it said nothing"])[-1]


def _run(command: list[str], folder: Path, output: TextIO, *, allowed: Sequence[int] = (0,)) -> int:
    """Run a command that ends when this process does; returns its status.

    Raises:
        _CommandError: the status is none of those that are allowed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _GUARD, *command],
        cwd=folder,
        env={**os.environ, "PATH": path, "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        # Ray calls a task off by a flag that a wait without a timeout does not see.
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
    finally:
        process.stdin.close()
        process.wait()
    if process.returncode not in allowed:
        raise _CommandError
    return process.returncode
