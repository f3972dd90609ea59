"""Kill a command at a chosen moment of one of its stages, as the kernel or a user would.

A moment is the N-th time the stage opens a file of the work tree for writing, renames, makes or
removes one, or makes an optimizer step; or a time after its start. A stage that ends before is
killed at its very end.
"""

import contextlib
import csv
import json
import os
import subprocess
import time
from pathlib import Path

import psutil

from tests.helpers.damage import without_costs

KILLER = """
import atexit, os, signal, sys, threading

def dvcs_above():
    pid, found = os.getpid(), []
    while pid > 1:
        with open(f"/proc/{pid}/cmdline") as file:
            words = file.read().split(chr(0))
        if any(word.endswith("/dvc") or word == "dvc" for word in words[:3]):
            found.append(pid)
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
    return found

def strike():
    global has_struck
    if has_struck or os.getpid() != me:
        return
    has_struck = True
    with open(os.environ["KILL_NOTE"], "a") as file:
        file.write(f"{os.getpid()} {events}" + chr(10))
    number = int(os.environ["KILL_SIGNAL"])
    whom = os.environ["KILL_WHOM"]
    if whom == "group":
        os.killpg(0, number)
    elif whom == "stage":
        os.kill(os.getpid(), number)
    elif whom == "dvc":
        os.kill(dvcs_above()[0], number)
    else:
        for pid in (*reversed(dvcs_above()), os.getpid()):
            os.kill(pid, number)

def count(*_):
    global events
    events += 1
    if events == wanted:
        strike()

def watch(event, arguments):
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str) or not (flags or 0) & (os.O_WRONLY | os.O_RDWR):
            return
    elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
        path = os.fspath(arguments[0])
    else:
        return
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if os.path.abspath(path).startswith(root) and "/.git/" not in path:
        count()

stage, events, me = os.environ["KILL_STAGE"], 0, os.getpid()
at, _, unit = os.environ["KILL_AT"].partition(" ")
wanted = int(at) if unit == "events" else 0
root = os.environ["KILL_ROOT"] + "/"
words = " ".join(sys.orig_argv[1:])
has_struck = os.path.exists(os.environ["KILL_NOTE"])
if words.startswith("-m stages.") and stage in words and not has_struck:
    atexit.register(strike)
    if unit == "events":
        sys.addaudithook(watch)
        from torch.optim.optimizer import register_optimizer_step_pre_hook
        register_optimizer_step_pre_hook(count)
    else:
        timer = threading.Timer(float(at), strike)
        timer.daemon = True
        timer.start()
"""


class Killer:
    """Runs commands in a work tree until they are killed at a moment."""

    def __init__(self, work_tree, folder: Path) -> None:
        self.work_tree = work_tree
        self.note = folder / "killed"
        # Not a pipe: a stage that outlives its dvc would keep it open.
        self._output = folder / "output.txt"
        (folder / "sitecustomize.py").write_text(KILLER, encoding="utf-8")
        self._folder = folder

    def run(self, command, *, stage: str, at: str, whom: str, number: int) -> None:
        """Run a command until a moment of a stage of it.

        Args:
            command: what to run; it gets a process group of its own.
            stage: part of the stage's command, such as `distill --method exp1`.
            at: the moment, `12 events` or `3.5 seconds`.
            whom: `group`; `stage`; `dvc`, the one that runs the stage; or `all`, the stage and
                every dvc above it, a queue's worker too.
            number: the signal.
        """
        self.note.unlink(missing_ok=True)
        process = subprocess.Popen(
            command,
            cwd=self.work_tree.root,
            env={
                **self.work_tree.environment,
                "PYTHONPATH": str(self._folder),
                "KILL_STAGE": stage,
                "KILL_AT": at,
                "KILL_WHOM": whom,
                "KILL_SIGNAL": str(int(number)),
                "KILL_NOTE": str(self.note),
                "KILL_ROOT": str(self.work_tree.root),
            },
            stdout=self._output.open("wb"),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        process.wait(timeout=300)
        deadline = time.monotonic() + 120  # a queue's worker outlives the command
        while not self.note.exists() and whom == "all" and time.monotonic() < deadline:
            time.sleep(0.2)
        assert self.note.exists(), f"nothing was killed\n{self._output.read_text()}"
        self.let_time_pass()

    def let_time_pass(self) -> None:
        """Make what the killed left a few minutes old: younger, it may be somebody's."""
        then = time.time() - 300
        for path in unfinished(self.work_tree.root):
            with contextlib.suppress(FileNotFoundError):  # another process tidies up
                os.utime(path, (then, then))

    def has_orphan(self) -> bool:
        """Return whether the stage still runs whose dvc was killed."""
        try:
            return psutil.Process(self._pid()).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def wait_for_orphan(self) -> None:
        """Wait until the stage whose dvc was killed has ended too."""
        deadline = time.monotonic() + 120
        while self.has_orphan():
            assert time.monotonic() < deadline, "a stage without its dvc does not end"
            time.sleep(0.1)

    def _pid(self) -> int:
        return int(self.note.read_text(encoding="utf-8").split()[0])


def left_by(work_tree) -> dict:
    """Collect what a run leaves, by file: bytes, or values without times and speeds."""
    root = work_tree.root
    left = {}
    for folder in ("data", "models", "metrics", "report"):
        for path in sorted((root / folder).rglob("*")):
            name = str(path.relative_to(root))
            if not path.is_file() or "/raw/" in name or name.startswith("metrics/costs/"):
                continue
            if name == "metrics/deploy.json":
                left[name] = _without_speeds(json.loads(path.read_text(encoding="utf-8")))
            elif name.startswith("metrics/live/"):
                if path.suffix == ".tsv" and path.stem != "images_per_second":
                    left[name] = _without_times(path)
            elif name == "report/index.html":
                left[name] = without_costs(path.read_bytes())
            else:
                left[name] = path.read_bytes()
    return left


def litter(work_tree) -> list[str]:
    """Return what nobody needs any more: unfinished files, states of trainings that are done."""
    root = work_tree.root
    states = [
        path
        for path in (root / ".scratch").rglob("*")
        if path.is_file() and path.parent != root / ".scratch" and path.parent.name != "locks"
    ]
    return [str(path.relative_to(root)) for path in (*unfinished(root), *states)]


def unfinished(root: Path) -> list[Path]:
    """Return the hidden folders that something is written in before it takes its place."""
    return [path for path in root.rglob(".*-????????") if ".git/" not in str(path)]


def _without_times(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [{key: row[key] for key in row if key != "timestamp"} for row in rows]


def _without_speeds(value):
    if isinstance(value, dict):
        return {
            key: _without_speeds(one)
            for key, one in value.items()
            if not any(word in key for word in ("_ms", "per_second", "_seconds", "speed", "sha256"))
        }
    if isinstance(value, list):
        return [_without_speeds(one) for one in value]
    return value
