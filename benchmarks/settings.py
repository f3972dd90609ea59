"""What is measured: the ways to train, the one recipe they share, and the size of a run.

Imports no torch, so that a wrong option is reported at once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from distillation.runs.environment import count_cores

TEACHER = "efficientnet_b0"
STUDENT = "mobilenetv3_small_100"
NUM_CLASSES = 10
IMAGE_SIZE = 32
CROP_PADDING = 4
TEMPERATURE = 4.0
ALPHA = 0.9
"""Weight of T² · KL(teacher ‖ student); cross-entropy with the labels has 1 - ALPHA."""
LEARNING_RATE = 1e-3
SEED = 0

STEMS: dict[str, int | None] = {"stock": None, "1": 1}
"""Stride of both models' first convolution by name; None leaves the architecture's own."""

WARM_UP_STEPS = 2
_MIN_STEPS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """One way to run an epoch of logit distillation."""

    title: str
    speeds: dict[tuple[str, str], float]
    """Images/s to be expected by (device, stem). It only sizes the epoch, so that every way is
    measured for about as long."""
    peer: bool = False
    """Other people's system, with a DataLoader and so with a number of workers."""


_PEER_SPEEDS = {
    ("cpu", "stock"): 400,
    ("cpu", "1"): 300,
    ("cuda", "stock"): 4e3,
    ("cuda", "1"): 3e3,
}

WAYS: dict[str, Way] = {
    "timm_task": Way(
        title="timm.task.LogitDistillationTask, DataLoader",
        speeds=_PEER_SPEEDS,
        peer=True,
    ),
    "torchdistill": Way(
        title="torchdistill's DistillationBox and KDLoss, DataLoader",
        speeds=_PEER_SPEEDS,
        peer=True,
    ),
    "tutorial": Way(
        title="a loop in the manner of PyTorch's tutorial, DataLoader",
        speeds=_PEER_SPEEDS,
        peer=True,
    ),
    "ours_live": Way(
        title="this project, teacher run live",
        speeds={
            ("cpu", "stock"): 1500,
            ("cpu", "1"): 450,
            ("cuda", "stock"): 2e4,
            ("cuda", "1"): 2e4,
        },
    ),
    "ours_cached": Way(
        title="this project, teacher outputs cached",
        speeds={
            ("cpu", "stock"): 2500,
            ("cpu", "1"): 1300,
            ("cuda", "stock"): 3e4,
            ("cuda", "1"): 3e4,
        },
    ),
    "limit": Way(
        title="the student's step alone on one fixed batch, eager, float32",
        speeds={
            ("cpu", "stock"): 3e3,
            ("cpu", "1"): 1500,
            ("cuda", "stock"): 1e4,
            ("cuda", "1"): 1e4,
        },
    ),
    "own_limit": Way(
        title="this project's step alone on one fixed batch",
        speeds={
            ("cpu", "stock"): 4e3,
            ("cpu", "1"): 2e3,
            ("cuda", "stock"): 3e4,
            ("cuda", "1"): 3e4,
        },
    ),
}
LIMITS = ("limit", "own_limit")
"""Two forms of the student's step alone; ratios are against the faster."""

PEERS = tuple(name for name, way in WAYS.items() if way.peer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The size of a run; every section is handed it and takes what concerns it."""

    quick: bool
    rounds: int
    """How often every row is measured; a round measures each once, one after another."""
    seconds: float
    """About how long a timed epoch takes."""
    batch_size: int
    rows: tuple[str, ...]
    """Keys of `WAYS`."""
    stems: tuple[str, ...]
    """Keys of `STEMS`."""
    devices: tuple[str, ...]
    """`cpu` and `cuda`, as far as there are any."""
    workers: tuple[int, ...]
    """Numbers of DataLoader workers the peers are tried with."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings with the recipe, ready for JSON."""
        return {
            **dataclasses.asdict(self),
            "teacher": TEACHER,
            "student": STUDENT,
            "image_size": IMAGE_SIZE,
            "num_classes": NUM_CLASSES,
            "views": f"reflected padding of {CROP_PADDING}, random crop, horizontal flip",
            "temperature": TEMPERATURE,
            "alpha": ALPHA,
            "optimizer": f"AdamW, learning rate {LEARNING_RATE:g}, no schedule",
            "warm_up_steps": WARM_UP_STEPS,
        }


def count_images(row: str, *, device: str, stem: str, seconds: float, batch_size: int) -> int:
    """Return the number of images, in whole batches, that takes a way about so many seconds."""
    num_steps = round(WAYS[row].speeds[device, stem] * seconds / batch_size)
    return max(num_steps, _MIN_STEPS) * batch_size


def default_workers() -> tuple[int, ...]:
    """Return the numbers of workers to try: none, two, and one a core where that is more."""
    return tuple(sorted({0, 2, max(2, count_cores())}))
