"""All trainings of one method: run each from where a killed run left it, write what they leave."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from distillation.base.checksums import seal
from distillation.base.command import saying_on_interrupt
from distillation.base.files import write_json
from distillation.base.progress import Progress
from distillation.base.workspace import Workspace
from distillation.models.classifier import Classifier, save_weights
from distillation.runs.environment import describe_environment
from distillation.runs.live import epoch_reporter
from distillation.runs.measured import SeedResult, run_training
from distillation.runs.predictions import Predictions
from distillation.runs.seeds import best_by_validation, combine_seeds
from distillation.runs.trackers import Log, chosen_trackers, open_trackers
from distillation.training.checkpoints import TrainingStates, fingerprint_training
from distillation.training.loop import EpochRecord, Training
from distillation.training.setup import Setup

logger = logging.getLogger(__name__)


def run_method(
    method: str,
    make_training: Callable[[int], Training],
    setup: Setup,
    workspace: Workspace,
    *,
    seeds: Sequence[int],
) -> list[Path]:
    """Run the trainings of one method, or of the teacher, one after another.

    Writes the weights (the best epoch's of the seed with the best validation accuracy),
    `metrics/<method>.json` (means and deviations), `metrics/seeds/<method>.json` (every seed's
    values and history, and what they ran on), `data/predictions/<method>.npz` and
    `metrics/live/<method>/`.

    Args:
        method: the method's name in file names and in the summary, or `teacher`.
        make_training: makes the training for a seed, once the one before is done.
        setup: data, test split and runtime.
        workspace: where to write.
        seeds: the seeds, in the order they are run.

    Returns:
        What was written.
    """
    environment = describe_environment(setup.runtime)  # of the code that runs, not of later commits
    results: list[SeedResult] = []
    trackers = chosen_trackers()
    with ExitStack() as stack:
        all_states = []
        for number, seed in enumerate(seeds):
            name = method if len(seeds) == 1 else f"{method} seed {seed}"
            training = dataclasses.replace(make_training(seed), name=name)
            if number == 0:
                total = len(seeds) * training.num_steps
                progress = stack.enter_context(Progress(total, unit="step"))
            # The states of finished seeds stay until all outputs are written: a run that is
            # killed at a later seed takes them up, and has nothing left to train.
            states = None
            if workspace.scratch is not None:
                states = _states(method, training, setup, workspace.scratch)
                all_states.append(stack.enter_context(states))
            with (
                saying_on_interrupt(partial(_how_to_go_on, training, states)),
                _open_trackers(trackers, method, training, workspace) as track,
            ):
                result = _run_seed(
                    training, setup, workspace.live(method), states, progress=progress, track=track
                )
            logger.info("%s on the test set: %s", name, result.to_text())
            results.append(result)
        made = _write(method, results, training.model, setup, workspace, environment=environment)
        if not workspace.keeps_states:
            for states in all_states:
                states.remove()
    return [*made, workspace.live(method)]


def _open_trackers(
    names: Sequence[str], method: str, training: Training, workspace: Workspace
) -> AbstractContextManager[Log]:
    recipe = training.recipe
    return open_trackers(
        names,
        f"{method}-seed{recipe.seed}",
        group=os.environ.get("DVC_EXP_NAME", "workspace"),
        settings={"model": training.model.name, **dataclasses.asdict(recipe), **training.settings},
        folder=workspace.trackers,
    )


def _run_seed(
    training: Training,
    setup: Setup,
    live: Path,
    states: TrainingStates | None,
    *,
    progress: Progress,
    track: Log,
) -> SeedResult:
    """Run one training, and count its steps."""
    history = [] if states is None else states.history()
    epochs, epochs_done = training.recipe.epochs, len(history)
    steps_per_epoch = training.num_steps // max(epochs, 1)
    progress.skip(epochs_done * steps_per_epoch)

    def announce() -> None:
        progress.describe(f"{training.name} epoch {min(epochs_done + 1, epochs)}/{epochs}")

    announce()
    with epoch_reporter(training, live, history=history, track=track) as report:

        def end_epoch(record: EpochRecord) -> None:
            nonlocal epochs_done
            epochs_done = record.epoch
            progress.pause()
            report(record)
            announce()

        result = run_training(
            training,
            test=setup.sets.test,
            runtime=setup.runtime,
            states=states,
            on_epoch=end_epoch,
            on_step=progress.advance,
        )
    progress.skip((epochs - epochs_done) * steps_per_epoch)  # patience saved them
    return result


def _how_to_go_on(training: Training, states: TrainingStates | None) -> str:
    if states is None:
        return ""
    done, epochs = len(states.history()), training.recipe.epochs
    where = f"after epoch {done} of {epochs}" if done else "from the first epoch"
    return f"the same command goes on with {training.name} {where}"


def _states(method: str, training: Training, setup: Setup, scratch: Path) -> TrainingStates:
    modules: dict[str, nn.Module] = {"model": training.model, "objective": training.objective}
    fingerprint = fingerprint_training(
        modules,
        {
            "model": training.model.name,
            "data": setup.data.fingerprint,
            "recipe": dataclasses.asdict(training.recipe),
            "device": setup.runtime.device.type,
            "precision": setup.runtime.precision,
            "compiles": setup.runtime.compiles,
            **training.settings,
        },
    )
    return TrainingStates(scratch, stage=method, fingerprint=fingerprint)


def _write(
    method: str,
    results: Sequence[SeedResult],
    model: Classifier,
    setup: Setup,
    workspace: Workspace,
    *,
    environment: Mapping[str, Any],
) -> list[Path]:
    data = setup.data
    weights, predictions = workspace.weights(method), workspace.predictions(method)
    means, values = workspace.metrics / f"{method}.json", workspace.seeds(method)
    records = [result.record() for result in results]
    saved_seed = best_by_validation(records)["seed"]
    saved = next(result for result in results if result.seed == saved_seed)
    model.load_state_dict(saved.weights)
    save_weights(model, weights, class_names=data.class_names)
    Predictions(
        logits=np.stack([result.logits.numpy() for result in results]),
        seeds=np.array([result.seed for result in results]),
        labels=data.test.labels,
        class_names=data.class_names,
    ).save(predictions)
    trainings = [
        {**record, "history": [epoch.without_times() for epoch in result.history]}
        for record, result in zip(records, results, strict=True)
    ]
    write_json(
        values,
        seal(
            {
                "data": data.source,
                "environment": environment,
                "seeds": trainings,
            }
        ),
    )
    write_json(means, {**combine_seeds(records), "data": data.source})
    return [weights, predictions, means, values]
