"""What a worker process does: one training, of which it tells its parent through a pipe."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

import torch

from distillation.base.allocator import keep_freed_memory
from distillation.base.command import one_line
from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.runs.seed import OpenTrainings, run_seed

_SECONDS_BETWEEN_STEPS = 0.2
"""Steps are counted in the worker and told so often."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One training, as a value that goes from process to process."""

    method: str
    open_trainings: OpenTrainings
    params: Params
    workspace: Workspace
    seed: int
    name: str
    num_threads: int
    log_level: int


def work(connection: Connection, task: Task) -> None:
    """Run a training; sends pairs of a kind of message and its arguments.

    Those are the calls of a `Listener`, `line`, and last `run` or, when it failed, `mistake` or
    `bug`. SIGTERM ends it at the next step.
    """
    must_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: must_end.set())
    threading.Thread(target=_end_with_parent, args=[connection], daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(task.num_threads)
    sender = _Sender(connection, must_end)
    logging.basicConfig(
        level=task.log_level, format="%(message)s", handlers=[_LineHandler(sender)], force=True
    )
    try:
        setup, make_training = task.open_trainings(task.params, task.workspace)
        training = dataclasses.replace(make_training(task.seed), name=task.name)
        run = run_seed(task.method, training, setup, task.workspace, listener=sender)
    except KeyboardInterrupt:
        # All contexts are closed. What python would still tidy up takes seconds with torch.
        sys.stdout.flush()
        os._exit(128 + signal.SIGTERM)
    except Exception as error:
        if (text := one_line(error)) is None:
            sender.send("bug", traceback.format_exc())
        else:
            sender.send("mistake", text)
    else:
        # In bytes: as tensors, torch would hand them over in shared memory.
        sender.send("run", pickle.dumps(run))


def _end_with_parent(connection: Connection) -> None:
    """Wait until the pipe is closed, which nobody writes to: the parent is gone."""
    try:
        connection.recv_bytes()
    except (EOFError, OSError):
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
