"""What every training stage does around its trainings: resume, report, measure, write."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from dvclive import Live
from torch import nn

from distillation.data.packed import PackedData
from distillation.environment import describe_environment
from distillation.files import write_json
from distillation.models import Classifier, save_weights
from distillation.predictions import Predictions
from distillation.program import saying_on_interrupt
from distillation.runtime import Runtime
from distillation.seeds import best_by_validation, combine_seeds
from distillation.training.arms import SeedResult, run_arm
from distillation.training.batches import ImageSet
from distillation.training.checkpoints import TrainingStates, fingerprint_training
from distillation.training.loop import EpochRecord, FitResult, Recipe
from stages.workspace import LIVE, METRICS, PREDICTIONS, SEEDS, scratch_directory, weights_path

logger = logging.getLogger(__name__)

OnEpoch = Callable[[EpochRecord], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """One training of an arm, ready to run."""

    model: Classifier
    """The classifier that `train` trains, on its device."""
    recipe: Recipe
    train: Callable[[str, OnEpoch, TrainingStates], FitResult]
    """Runs the training under a name, calls the function after every epoch, keeps its state."""
    trained_with_model: nn.Module | None = None
    """What else `train` trains."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What else decides the training, ready for JSON."""
    teacher_outputs: str = "none"
    """Where the training has the teacher's outputs from."""


def run_arm_stage(
    arm: str,
    prepare: Callable[[int], Training],
    *,
    seeds: Sequence[int],
    test: ImageSet,
    data: PackedData,
    runtime: Runtime,
) -> list[Path]:
    """Train one arm once a seed, from where a killed run left it, and write models and metrics.

    Writes the weights (the best epoch's of the seed with the best validation accuracy),
    `metrics/<arm>.json` (means and deviations), `metrics/seeds/<arm>.json` (every seed's values and
    history, and what they ran on), `data/predictions/<arm>.npz` and `metrics/live/<arm>/`.

    Args:
        arm: the arm's name in file names and in the summary.
        prepare: makes the training of a seed.
        seeds: the seeds, in the order they are run.
        test: the test split, on the same device.
        data: the packed set.
        runtime: device and precision.

    Returns:
        What was written.
    """
    results: list[SeedResult] = []
    with ExitStack() as stack:
        all_states = []
        for seed in seeds:
            training = prepare(seed)
            name = arm if len(seeds) == 1 else f"{arm} seed {seed}"
            # The states of finished seeds stay until the stage has written its outputs: a run that
            # is killed at a later seed takes them up, and has nothing left to train.
            states = stack.enter_context(_states(arm, training, data=data, runtime=runtime))
            all_states.append(states)
            with saying_on_interrupt(partial(_how_to_go_on, name, training, states)):
                results.append(_run_seed(arm, name, training, states, test=test, runtime=runtime))
        made = _write(arm, results, training.model, data=data, runtime=runtime)
        for states in all_states:
            states.remove()
    combined = combine_seeds([_record(result) for result in results])
    logger.info(
        "%s: test accuracy %.2f %% before, %.2f %% after, %.2f %% at the epoch best on validation "
        "(%s %s)",
        arm,
        combined["before_acc"],
        combined["after_acc"],
        combined["best_acc"],
        "seed" if len(seeds) == 1 else "mean of seeds",
        ", ".join(map(str, seeds)),
    )
    return [*made, LIVE / arm]


def _how_to_go_on(name: str, training: Training, states: TrainingStates) -> str:
    done, epochs = len(states.history()), training.recipe.epochs
    where = f"after epoch {done} of {epochs}" if done else "from the first epoch"
    return f"the same command goes on with {name} {where}"


def _states(arm: str, training: Training, *, data: PackedData, runtime: Runtime) -> TrainingStates:
    modules: dict[str, nn.Module] = {"model": training.model}
    if training.trained_with_model is not None:
        modules["trained_with_model"] = training.trained_with_model
    fingerprint = fingerprint_training(
        modules,
        {
            "model": training.model.name,
            "data": data.fingerprint,
            "recipe": dataclasses.asdict(training.recipe),
            "device": runtime.device.type,
            "precision": runtime.precision,
            "compiles": runtime.compiles,
            **training.settings,
        },
    )
    return TrainingStates(scratch_directory(), stage=arm, fingerprint=fingerprint)


def _run_seed(
    arm: str,
    name: str,
    training: Training,
    states: TrainingStates,
    *,
    test: ImageSet,
    runtime: Runtime,
) -> SeedResult:
    seed, epochs = training.recipe.seed, training.recipe.epochs
    directory = str(LIVE / arm / f"seed{seed}")
    with _epoch_reporter(name, directory, epochs=epochs, history=states.history()) as on_epoch:
        return run_arm(
            training.model,
            lambda: training.train(name, on_epoch, states),
            test=test,
            runtime=runtime,
            seed=seed,
            teacher_outputs=training.teacher_outputs,
        )


def _write(
    arm: str,
    results: Sequence[SeedResult],
    model: Classifier,
    *,
    data: PackedData,
    runtime: Runtime,
) -> list[Path]:
    weights, predictions = weights_path(arm), PREDICTIONS / f"{arm}.npz"
    means, values = METRICS / f"{arm}.json", SEEDS / f"{arm}.json"
    records = [_record(result) for result in results]
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
        {
            "data": data.source,
            "environment": describe_environment(runtime),
            "seeds": trainings,
        },
    )
    write_json(means, {**combine_seeds(records), "data": data.source})
    return [weights, predictions, means, values]


def _record(result: SeedResult) -> dict[str, Any]:
    return {"seed": result.seed, **result.flat()}


@contextmanager
def _epoch_reporter(
    name: str, directory: str, *, epochs: int, history: list[dict[str, Any]]
) -> Iterator[OnEpoch]:
    """Give a function that logs an epoch's record and appends it to DVCLive's files.

    What a killed run had done is put into the files first: DVC deletes them before a stage runs.
    """
    with Live(directory, dvcyaml=None, save_dvc_exp=False) as live:

        def append(record: EpochRecord) -> None:
            live.step = record.epoch
            for term, value in record.terms.items():
                live.log_metric(f"train/{term}", value)
            live.log_metric("validation/loss", record.validation.loss)
            live.log_metric("validation/acc", record.validation.acc)
            live.log_metric("validation/f1", record.validation.f1)
            live.log_metric("learning_rate", record.learning_rate)
            live.log_metric("images_per_second", record.images_per_second)
            live.next_step()

        def report(record: EpochRecord) -> None:
            logger.info("%s", record.to_line(name, num_epochs=epochs))
            append(record)

        if history:
            logger.info("%s: going on after epoch %d of %d", name, len(history), epochs)
        for record in history:
            append(EpochRecord.from_dict(record))
        yield report
