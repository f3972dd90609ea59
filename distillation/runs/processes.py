"""How many trainings of a stage run at once, on what, and with how many threads each.

The threads decide the rounding, so they follow from the machine's cores and the number of seeds
alone. How many trainings run at once decides nothing but the time, and may be chosen freely.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from distillation.base.errors import DistillationError
from distillation.runs.environment import count_cores

VARIABLE = "DISTILLATION_PROCESSES"


class ProcessesError(DistillationError):
    """The number of processes that the environment asks for is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessPlan:
    """How the trainings of a stage share the machine."""

    num_processes: int
    """How many run at once; with 1 they run in this process, one after another."""
    num_threads: int
    """Of each training."""
    devices: tuple[str, ...]
    """The device of each process."""


def plan_processes(
    num_seeds: int, *, device_name: str, num_processes: int | None = None
) -> ProcessPlan:
    """Decide how the trainings of a stage share the machine.

    A training has the threads that OMP_NUM_THREADS says, or else an even share of the cores. GPUs
    get a process each. Cores get as many processes as finish soonest: where each has one thread,
    that may be a few more than there are cores, so that none is idle while the last seed trains.

    Args:
        num_seeds: how many trainings there are.
        device_name: as `select_device` takes it; `auto` and `cuda` mean every GPU there is.
        num_processes: how many to run at once whatever the rule says, at most one per seed;
            None: what DISTILLATION_PROCESSES says, or else the rule.

    Raises:
        ProcessesError: the variable holds no number of at least 1.
    """
    num_threads = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        num_threads = max(1, num_threads // num_seeds)
    devices = _devices(device_name)
    wanted = num_processes or _read_variable()
    if wanted is None:
        is_cpu = devices == ["cpu"]
        wanted = _fill_cores(num_seeds, num_threads) if is_cpu else len(devices)
    at_once = min(wanted, num_seeds)
    return ProcessPlan(
        num_processes=at_once,
        num_threads=num_threads,
        devices=tuple(devices[slot % len(devices)] for slot in range(at_once)),
    )


@contextmanager
def use_threads(number: int) -> Iterator[None]:
    """Let torch compute with so many threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _devices(name: str) -> list[str]:
    """Return the devices a name means; nothing is computed on them, a wrong name is kept."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.device_count() > 1:
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [name]


def _fill_cores(num_seeds: int, num_threads: int) -> int:
    """Return the fewest processes with which the trainings take the least time on the cores."""
    fit = max(1, count_cores() // num_threads)
    if num_threads > 1:
        return fit  # teams of threads that share a core wait for each other

    def duration(at_once: int) -> float:
        """Count in trainings that have a core to themselves."""
        rounds, rest = divmod(num_seeds, at_once)
        return rounds * max(1.0, at_once / fit) + (max(1.0, rest / fit) if rest else 0.0)

    return min(range(fit, 2 * fit), key=duration)


def _read_variable() -> int | None:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ProcessesError(f"{VARIABLE}: got {text!r}; allowed: a whole number at least 1")
    return number
