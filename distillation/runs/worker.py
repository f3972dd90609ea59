"""What a worker process does: one training, of which it tells its parent through a pipe.

Where the training has several devices, the worker starts a process for each, a rank, that does the
same, and the first one tells of it.
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from distillation.base.allocator import keep_freed_memory
from distillation.base.command import one_line
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.runs.launching import launch_ranks, own_rank
from distillation.runs.seed import OpenTrainings, SeedRun, run_seed
from distillation.training.batches import batch_shape
from distillation.training.denormals import set_threads
from distillation.training.loop import fit
from distillation.training.parallel import ALONE, MIN_SHARE, Ranks, join_ranks, leave_ranks
from distillation.training.values import Training

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_STEPS = 0.2
"""Steps are counted in the worker and told so often."""
_SECONDS_UNTIL_TOLD = 1.0
"""The launcher of ranks takes a tenth to see that one has ended, and to end the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One training, as a value that goes from process to process."""

    method: str
    open_trainings: OpenTrainings
    params: Params
    workspace: Workspace
    devices: tuple[str, ...]
    """Over which it is spread, by name."""
    seed: int
    name: str
    num_threads: int
    log_level: int


def work(connection: Connection, task: Task) -> None:
    """Run a training; sends pairs of a kind of message and its arguments.

    Those are the calls of a `Listener`, `line`, and last `run` or, when it failed, `mistake` or
    `bug`. SIGTERM ends it at the next step.
    """
    threading.Thread(target=_end_with_parent, args=[connection], daemon=True).start()
    if len(task.devices) == 1:
        _train(connection, task, rank=0)
        return
    launch_ranks(
        _work_as_rank,
        connection,
        task,
        num_ranks=len(task.devices),
        start_method="spawn" if task.devices[0].startswith("cuda") else "fork",
    )


def _work_as_rank(connection: Connection, task: Task) -> None:
    threading.Thread(target=_end_with_parent, args=[connection], daemon=True).start()
    _train(connection, task, rank=own_rank())


def _train(connection: Connection, task: Task, *, rank: int) -> None:
    must_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: must_end.set())
    keep_freed_memory()
    sender = _Sender(connection, must_end)
    handlers: list[logging.Handler] = [logging.NullHandler() if rank else _LineHandler(sender)]
    logging.basicConfig(level=task.log_level, format="%(message)s", handlers=handlers, force=True)
    try:
        set_threads(max(1, task.num_threads // len(task.devices)))
        run = _run_rank(task, rank, sender)
    except KeyboardInterrupt:
        _exit_terminated()
    except Exception as error:
        if (text := one_line(error)) is not None:
            sender.send("mistake", text)
            return
        if len(task.devices) > 1:
            # Where another rank has ended, this one fails too, and is told to end in a moment.
            if not must_end.is_set():
                time.sleep(_SECONDS_UNTIL_TOLD)
            if must_end.is_set():
                _exit_terminated()
        sender.send("bug", traceback.format_exc())
    else:
        if run is not None:
            # In bytes: as tensors, torch would hand them over in shared memory.
            sender.send("run", pickle.dumps(run))


def _run_rank(task: Task, rank: int, sender: _Sender) -> SeedRun | None:
    """Take part in a training; returns what it leaves, if this rank is the first."""
    workspace = dataclasses.replace(task.workspace, device_name=task.devices[rank])
    setup, make_training = task.open_trainings(task.params, workspace)
    training = dataclasses.replace(make_training(task.seed), name=task.name)
    ranks = _join(task, rank, training, setup.runtime.device)
    setup = dataclasses.replace(setup, runtime=dataclasses.replace(setup.runtime, ranks=ranks))
    if rank == 0:
        run = run_seed(task.method, training, setup, workspace, listener=sender)
        leave_ranks(ranks)
        return run
    if ranks is not ALONE:
        # SIGTERM ends this rank when the first has ended, which may have curves to close.
        fit(training, runtime=setup.runtime)
        leave_ranks(ranks)
    return None


def _join(task: Task, rank: int, training: Training, device: torch.device) -> Ranks:
    """Connect with the other ranks, if the training can be spread."""
    num_devices = len(task.devices)
    if num_devices == 1:
        return ALONE
    _, batch_size = batch_shape(training.train.epoch_size, training.recipe.batch_size)
    why_not = None
    if training.couples_samples:
        why_not = "its loss compares the images of a batch"
    elif batch_size < MIN_SHARE * num_devices:
        why_not = f"{batch_size} images in a batch are too few for {num_devices}"
    if why_not is None:
        return join_ranks(rank, num_devices, device)
    logger.info("%s: trained on one device, since %s", task.name, why_not)
    set_threads(task.num_threads)
    return ALONE


def _exit_terminated() -> None:
    # All contexts are closed. What python would still tidy up takes seconds with torch.
    sys.stdout.flush()
    os._exit(128 + signal.SIGTERM)


def _end_with_parent(connection: Connection) -> None:
    """Wait until the pipe is closed, which nobody writes to, or the parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([connection, parent.sentinel])
    os._exit(128 + signal.SIGTERM)


class _Sender:
    """Passes on to the parent what a training has to say; is its `Listener`."""

    def __init__(self, connection: Connection, must_end: threading.Event) -> None:
        self._connection, self._must_end = connection, must_end
        self._lock = threading.Lock()  # the thread that reads ahead may log, too
        self._steps, self._last = 0, time.monotonic()

    def send(self, kind: str, *arguments: Any) -> None:
        """Send a message whole."""
        with self._lock:
            self._connection.send((kind, arguments))

    def begin(self, num_steps: int, num_epochs: int, epochs_done: int) -> None:
        self.send("begin", num_steps, num_epochs, epochs_done)

    def advance(self, number: int = 1) -> None:
        self._steps += number
        if self._must_end.is_set():
            raise KeyboardInterrupt
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_STEPS:
            self._send_steps()

    def end_epoch(self, epoch: int) -> None:
        self._send_steps()
        self.send("end_epoch", epoch)

    def end(self) -> None:
        self.send("end")

    def _send_steps(self) -> None:
        if self._steps:
            self.send("advance", self._steps)
        self._steps, self._last = 0, time.monotonic()


class _LineHandler(logging.Handler):
    """Sends lines of the log instead of writing them."""

    def __init__(self, sender: _Sender) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        self._sender.send("line", record.name, record.levelno, self.format(record))
