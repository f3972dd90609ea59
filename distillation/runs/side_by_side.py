"""Run the trainings of a method in processes of their own, several at once.

A worker does what `run_seed` does in this process, and tells of it through a pipe: lines of its
log, steps, at the end what is to be written. One that fails ends the others, and its message is
the stage's. A worker whose parent is gone, however that ended, finds its pipe closed and ends too.
What was ended goes on from its state the next time.
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from distillation.base.errors import DistillationError
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.runs.processes import VARIABLE, ProcessPlan
from distillation.runs.seed import OpenTrainings, SeedRun
from distillation.runs.stage_progress import Listener, StageProgress
from distillation.runs.worker import Task, work

_GRACE_SECONDS = 3.0
"""So long may a worker take to end by itself, and close its curves, before it is killed."""
_PIPE_BYTES = 2**16


class SeedError(DistillationError):
    """A training failed in its process, or the process was ended from outside."""


def run_side_by_side(
    method: str,
    open_trainings: OpenTrainings,
    params: Params,
    workspace: Workspace,
    names: Mapping[int, str],
    *,
    plan: ProcessPlan,
    progress: StageProgress,
) -> list[SeedRun]:
    """Run a method's trainings, each in a process of its own.

    Args:
        method: as `run_method` takes it.
        open_trainings: likewise; each process calls it.
        params: likewise.
        workspace: likewise.
        names: what to call each seed's training, by seed, in the order they are begun.
        plan: how many run at once, and on what.
        progress: shows how far all of them are.

    Returns:
        What each leaves, in the order of `names`.

    Raises:
        SeedError: one failed; the others were ended.
    """
    waiting, devices = deque(names), deque(plan.devices)
    workers: list[_Worker] = []
    lines: dict[str, int] = {}
    runs: dict[int, SeedRun] = {}
    try:
        while waiting or workers:
            while waiting and devices:
                seed = waiting.popleft()
                task = Task(
                    method=method,
                    open_trainings=open_trainings,
                    params=params,
                    workspace=workspace,
                    devices=devices.popleft(),
                    seed=seed,
                    name=names[seed],
                    num_threads=plan.num_threads,
                    log_level=logging.getLogger().getEffectiveLevel(),
                )
                workers.append(_start(task, progress))
            for worker in _ready(workers):
                try:
                    kind, arguments = worker.connection.recv()
                except (EOFError, OSError):  # it has ended
                    workers.remove(worker)
                    _bury(worker, is_done=worker.task.seed in runs)
                    devices.append(worker.task.devices)
                    continue
                if kind == "run":
                    runs[worker.task.seed] = pickle.loads(*arguments)
                elif kind == "line":
                    _log(worker, lines, progress, *arguments)
                else:
                    _hear(worker, kind, arguments)
    finally:
        _end(workers)
    return [runs[seed] for seed in names]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Worker:
    """A process, and what it does."""

    process: BaseProcess
    connection: Connection
    """Our end of its pipe."""
    task: Task
    listener: Listener


def _start(task: Task, progress: StageProgress) -> _Worker:
    context = _context(task.devices[0])
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, task), name=task.name)
    # A worker has Ctrl-C blocked from its first moment on: a terminal sends it to every process,
    # and this one decides. Python's own helper would undo that, were it not running by then.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    listener = progress.listen(task.name, task.seed)
    return _Worker(process=process, connection=ours, task=task, listener=listener)


def _ready(workers: Sequence[_Worker], *, timeout: float | None = None) -> list[_Worker]:
    """Wait for workers that have sent something, or have ended."""
    pipes = wait([worker.connection for worker in workers], timeout=timeout)
    return [worker for worker in workers if worker.connection in pipes]


def _context(device_name: str) -> ForkServerContext | SpawnContext:
    """Return how processes are started: never by a fork of this one, whose threads would be gone.

    A server that has imported torch and trains nothing is forked instead, so that no worker needs
    seconds for that, and all share its memory. No fork can use a GPU that its origin has touched.
    """
    if device_name.startswith("cuda"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__, "dvclive"])
    return context


def _log(
    worker: _Worker,
    lines: dict[str, int],
    progress: StageProgress,
    logger_name: str,
    level: int,
    text: str,
) -> None:
    """Log a worker's line, unless another has sent the same: all read the same data."""
    if lines.setdefault(text, worker.task.seed) == worker.task.seed:
        progress.pause()
        logging.getLogger(logger_name).log(level, "%s", text)


def _hear(worker: _Worker, kind: str, arguments: Sequence[Any]) -> None:
    """Do what a message says; raises where it says that the training failed."""
    if kind == "mistake":
        raise SeedError(*arguments)
    if kind == "bug":
        raise RuntimeError(f"{worker.task.name} failed in its process:\n{arguments[0]}")
    getattr(worker.listener, kind)(*arguments)


def _bury(worker: _Worker, *, is_done: bool) -> None:
    """Take leave of a process that has ended; raises where its work was not done."""
    worker.connection.close()
    worker.process.join()
    if is_done:
        return
    code = worker.process.exitcode or 0
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
    raise SeedError(
        f"{worker.task.name}: its process ended {how}, as happens when memory runs out; with "
        f"{VARIABLE}=1 one training runs at a time; the same command goes on where each was"
    )


def _end(workers: Sequence[_Worker]) -> None:
    """End processes whose work is no longer wanted."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    ending = list(workers)
    while ending and (left := deadline - time.monotonic()) > 0:
        for worker in _ready(ending, timeout=left):
            # Messages are of no use any more, and one may have been read in part.
            if not _read(worker.connection):
                ending.remove(worker)
    for worker in workers:
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _read(pipe: Connection) -> bytes:
    try:
        return os.read(pipe.fileno(), _PIPE_BYTES)
    except OSError:
        return b""
