"""Send curves to the trackers people use beside DVCLive: TensorBoard, Weights & Biases, MLflow.

`DISTILLATION_TRACKERS` names them, separated by commas; none is on by default. It is no parameter:
where curves are looked at is no part of an experiment. A tracker's own settings, such as its
address, are its own environment variables.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from distillation.base.errors import DistillationError

VARIABLE = "DISTILLATION_TRACKERS"
PROJECT = "distillation"
"""Project of Weights & Biases and experiment of MLflow, unless their own variables say another."""

Log = Callable[[int, Mapping[str, float]], object]
"""Takes an epoch, 1-based, and its values by name."""


class TrackerError(DistillationError):
    """A tracker is unknown, or its package is not installed."""


def chosen_trackers() -> list[str]:
    """Return the trackers that the environment names, each of which can be had.

    Raises:
        TrackerError: one is unknown or not installed.
    """
    text = os.environ.get(VARIABLE, "")
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in _TRACKERS:
            raise TrackerError(f"{VARIABLE}: got {name!r}; allowed: {', '.join(_TRACKERS)}")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise TrackerError(
                f"{VARIABLE}: {name} is not installed ({error}); pip install {name}"
            ) from error
    return names


@contextmanager
def open_trackers(
    names: Sequence[str], run: str, *, group: str, settings: Mapping[str, Any], folder: Path
) -> Iterator[Log]:
    """Begin one run in each tracker, and end it with the context.

    Args:
        names: the trackers.
        run: what the run is called: method and seed.
        group: what runs that belong together share.
        settings: what decides the training, to be shown beside its curves.
        folder: where trackers that keep files put theirs.
    """
    with ExitStack() as stack:
        logs = [
            stack.enter_context(_TRACKERS[name](run, group, settings, folder / name))
            for name in names
        ]

        def log(epoch: int, values: Mapping[str, float]) -> None:
            for one in logs:
                one(epoch, values)

        yield log


@contextmanager
def _tensorboard(run: str, group: str, settings: Mapping[str, Any], folder: Path) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    # The history is told anew where a training goes on; what is there is that or an older run's.
    shutil.rmtree(folder / group / run, ignore_errors=True)
    with SummaryWriter(str(folder / group / run)) as writer:
        writer.add_text("settings", "\n".join(f"- {key}: {settings[key]}" for key in settings))

        def log(epoch: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()

        yield log


@contextmanager
def _wandb(run: str, group: str, settings: Mapping[str, Any], folder: Path) -> Iterator[Log]:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        group=group,
        name=run,
        config=dict(settings),
        dir=str(folder),
    ) as opened:
        yield lambda epoch, values: opened.log(dict(values), step=epoch)


@contextmanager
def _mlflow(run: str, group: str, settings: Mapping[str, Any], folder: Path) -> Iterator[Log]:
    import mlflow

    folder.mkdir(parents=True, exist_ok=True)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{folder.resolve()}/mlflow.db")
    # Seeds that are trained side by side would each make the tables.
    with FileLock(folder / "lock"):
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
    with mlflow.start_run(run_name=run, tags={"group": group}):
        mlflow.log_params(dict(settings))
        yield lambda epoch, values: mlflow.log_metrics(dict(values), step=epoch)


_TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
