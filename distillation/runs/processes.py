"""How many trainings of a stage run at once, on how many devices and with how many threads each.

The threads decide the rounding, so they follow from the machine's cores and the number of seeds
alone. How many trainings run at once decides nothing but the time, and may be chosen freely; over
how many devices one is spread decides the rounding too.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice

import torch

from distillation.base.errors import DistillationError
from distillation.runs.environment import count_cores
from distillation.training.denormals import set_threads

VARIABLE = "DISTILLATION_PROCESSES"
DEVICES_VARIABLE = "DISTILLATION_DEVICES"


class ProcessesError(DistillationError):
    """The number of processes or devices that the environment asks for is none, or too many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessPlan:
    """How the trainings of a stage share the machine."""

    num_processes: int
    """How many run at once; with 1 they run in this process, one after another."""
    num_threads: int
    """Of each training, on all its devices together."""
    devices: tuple[tuple[str, ...], ...]
    """The devices of the training in each process; as many for all."""

    @property
    def num_devices(self) -> int:
        """Return over how many devices one training is spread."""
        return len(self.devices[0])


def plan_processes(
    num_seeds: int, *, device_name: str, num_processes: int | None = None
) -> ProcessPlan:
    """Decide how the trainings of a stage share the machine.

    A training has the threads that OMP_NUM_THREADS says, or else an even share of the cores. GPUs
    get a process each. Cores get as many processes as finish soonest: where each has one thread,
    that may be a few more than there are cores, so that none is idle while the last seed trains.

    DISTILLATION_DEVICES says over how many devices one training is spread: GPUs, or on the CPU
    processes that share its threads. The default is 1 on the CPU, and as many GPUs as there are for
    each of the trainings that run at once.

    Args:
        num_seeds: how many trainings there are.
        device_name: as `select_device` takes it; `auto` and `cuda` mean every GPU there is.
        num_processes: how many to run at once whatever the rule says, at most one per seed;
            None: what DISTILLATION_PROCESSES says, or else the rule.

    Raises:
        ProcessesError: a variable holds no number of at least 1, or there are fewer devices.
    """
    num_threads = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        num_threads = max(1, num_threads // num_seeds)
    devices = _devices(device_name)
    is_cpu = devices == ["cpu"]
    num_devices = _read_variable(DEVICES_VARIABLE)
    if num_devices is not None and num_devices > len(devices) and not is_cpu:
        raise ProcessesError(
            f"{DEVICES_VARIABLE}: got {num_devices}; allowed: at most {len(devices)}, the devices "
            f"there are for {device_name!r}"
        )
    wanted = num_processes or _read_variable(VARIABLE)
    if wanted is None:
        each = num_devices or 1
        wanted = _fill_cores(num_seeds, max(num_threads, each)) if is_cpu else len(devices) // each
    at_once = min(wanted, num_seeds)
    if num_devices is None:
        num_devices = max(1, len(devices) // at_once)
    in_turn = cycle(devices)
    return ProcessPlan(
        num_processes=at_once,
        num_threads=num_threads,
        devices=tuple(tuple(islice(in_turn, num_devices)) for _ in range(at_once)),
    )


@contextmanager
def use_threads(number: int) -> Iterator[None]:
    """Let torch compute with so many threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    set_threads(number)
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


def _read_variable(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ProcessesError(f"{name}: got {text!r}; allowed: a whole number at least 1")
    return number
