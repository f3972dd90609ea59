"""Run one training of a method from where a killed run left it, in whatever process."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

from distillation.base.params import Params
from distillation.base.workspace import Workspace
from distillation.models.classifier import pack_weights
from distillation.runs.environment import describe_environment
from distillation.runs.live import epoch_reporter
from distillation.runs.measured import SeedResult, run_training
from distillation.runs.stage_progress import Listener
from distillation.runs.trackers import chosen_trackers, open_trackers
from distillation.training.checkpoints import TrainingStates, fingerprint_training
from distillation.training.setup import Setup
from distillation.training.values import EpochRecord, Training

logger = logging.getLogger(__name__)

OpenTrainings = Callable[[Params, Workspace], tuple[Setup, Callable[[int], Training]]]
"""Reads what the trainings of a method share; returns it, and what makes the training of a seed.
Other processes call it too, so it is a function of a module, or a partial one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedRun:
    """What one training leaves to be written."""

    result: SeedResult
    weights: bytes
    """The content of the file of weights, at the best epoch."""
    states: Path | None
    """The folder of the training's state, which is kept until all is written."""
    class_names: tuple[str, ...]
    data_source: str
    environment: dict[str, Any]
    """What it ran on, ready for JSON."""
    compute_unit: str
    """Of what `compute_seconds` in the history are the time."""


def run_seed(
    method: str, training: Training, setup: Setup, workspace: Workspace, *, listener: Listener
) -> SeedRun:
    """Run one training, and count its steps.

    Args:
        method: the method's name in file names, or `teacher`.
        training: what to train; its name stands in the log.
        setup: data, test split and runtime.
        workspace: where its state and its curves are.
        listener: hears how far it is.
    """
    environment = describe_environment(setup.runtime)  # of the code that runs, not of later commits
    recipe, live = training.recipe, workspace.live(method)
    with ExitStack() as stack:
        states = None
        if workspace.scratch is not None:
            fingerprint = _fingerprint(training, setup)
            states = TrainingStates(workspace.scratch, stage=method, fingerprint=fingerprint)
            stack.enter_context(states)
            environment = states.began_in(environment)
        history = [] if states is None else states.history()
        listener.begin(training.num_steps, recipe.epochs, len(history))
        track = stack.enter_context(
            open_trackers(
                chosen_trackers(),
                f"{method}-seed{recipe.seed}",
                group=os.environ.get("DVC_EXP_NAME", "workspace"),
                settings=_settings(training),
                folder=workspace.trackers,
            )
        )
        report = stack.enter_context(epoch_reporter(training, live, history=history, track=track))

        def end_epoch(record: EpochRecord) -> None:
            listener.end_epoch(record.epoch)
            report(record)

        result = run_training(
            training,
            test=setup.sets.test,
            runtime=setup.runtime,
            states=states,
            on_epoch=end_epoch,
            on_step=listener.advance,
        )
    listener.end()
    logger.info("%s on the test set: %s", training.name, result.to_text())
    return SeedRun(
        result=result,
        weights=pack_weights(training.model, class_names=setup.data.class_names),
        states=None if states is None else states.directory,
        class_names=setup.data.class_names,
        data_source=setup.data.source,
        environment=environment,
        compute_unit=setup.runtime.compute_unit,
    )


def _settings(training: Training) -> dict[str, Any]:
    """Return what decides a training, to be shown beside its curves."""
    recipe = dataclasses.asdict(training.recipe)
    return {"model": training.model.name, **recipe, **training.settings}


def _fingerprint(training: Training, setup: Setup) -> str:
    modules: dict[str, nn.Module] = {"model": training.model, "objective": training.objective}
    settings = {
        "model": training.model.name,
        "data": setup.data.fingerprint,
        "recipe": dataclasses.asdict(training.recipe),
        "device": setup.runtime.device.type,
        "precision": setup.runtime.precision,
        "compiles": setup.runtime.compiles,
        **training.settings,
    }
    return fingerprint_training(modules, settings, code=training.code)
