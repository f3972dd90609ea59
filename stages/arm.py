"""What every training stage does around its training: resume, report, measure, write."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dvclive import Live
from torch import nn

from distillation.data.packed import PackedData
from distillation.files import write_json
from distillation.models import Classifier, save_weights
from distillation.runtime import Runtime
from distillation.training.arms import run_arm
from distillation.training.batches import ImageSet
from distillation.training.checkpoints import TrainingStates, fingerprint_training
from distillation.training.loop import EpochRecord, FitResult, Recipe
from stages.workspace import LIVE, METRICS, MODELS, scratch_directory

logger = logging.getLogger(__name__)

OnEpoch = Callable[[EpochRecord], None]


def run_arm_stage(
    arm: str,
    model: Classifier,
    train: Callable[[OnEpoch, TrainingStates], FitResult],
    *,
    test: ImageSet,
    data: PackedData,
    recipe: Recipe,
    runtime: Runtime,
    trained_with_model: nn.Module | None = None,
    settings: Mapping[str, Any] | None = None,
    teacher_outputs: str = "none",
) -> None:
    """Run one arm, from where a killed run left it, and write its model and metrics.

    Writes `models/<arm>.safetensors` (the best epoch's weights), `metrics/<arm>.json` and
    `metrics/live/<arm>/`.

    Args:
        arm: the arm's name in file names and in the summary.
        model: the classifier that `train` trains, on its device.
        train: runs the training, calls what it is given after every epoch, keeps its state where
            it is told.
        test: the test split, on the same device.
        data: the packed set.
        recipe: how `train` trains.
        runtime: device and precision.
        trained_with_model: what else `train` trains.
        settings: what else decides the training, ready for JSON.
        teacher_outputs: where the training has the teacher's outputs from.
    """
    modules = {"model": model}
    if trained_with_model is not None:
        modules["trained_with_model"] = trained_with_model  # type: ignore[assignment]
    fingerprint = fingerprint_training(
        modules,
        {
            "model": model.name,
            "data": data.fingerprint,
            "recipe": dataclasses.asdict(recipe),
            "device": runtime.device.type,
            "precision": runtime.precision,
            "compiles": runtime.compiles,
            **(settings or {}),
        },
    )
    with TrainingStates(scratch_directory(), stage=arm, fingerprint=fingerprint) as states:
        with _epoch_reporter(arm, epochs=recipe.epochs, history=states.history()) as on_epoch:
            result = run_arm(
                model,
                lambda: train(on_epoch, states),
                test=test,
                runtime=runtime,
                teacher_outputs=teacher_outputs,
            )
        save_weights(model, MODELS / f"{arm}.safetensors", class_names=data.class_names)
        write_json(METRICS / f"{arm}.json", {**result.flat(), "data": data.source})
        states.remove()
    logger.info(
        "%s: test accuracy %.2f %% before, %.2f %% after, %.2f %% at epoch %d (best on validation)",
        arm,
        result.before.acc,
        result.after.acc,
        result.best.acc,
        result.best_epoch,
    )


@contextmanager
def _epoch_reporter(arm: str, *, epochs: int, history: list[dict[str, Any]]) -> Iterator[OnEpoch]:
    """Give a function that logs an epoch's record and appends it to DVCLive's files.

    What a killed run had done is put into the files first: DVC deletes them before a stage runs.
    """
    with Live(str(LIVE / arm), dvcyaml=None, save_dvc_exp=False) as live:

        def append(record: EpochRecord) -> None:
            for term, value in record.terms.items():
                live.log_metric(f"train/{term}", value)
            live.log_metric("validation/loss", record.validation.loss)
            live.log_metric("validation/acc", record.validation.acc)
            live.log_metric("validation/f1", record.validation.f1)
            live.log_metric("learning_rate", record.learning_rate)
            live.log_metric("images_per_second", record.images_per_second)
            live.next_step()

        def report(record: EpochRecord) -> None:
            logger.info("%s", record.to_line(arm, num_epochs=epochs))
            append(record)

        if history:
            logger.info("%s: going on after epoch %d of %d", arm, len(history), epochs)
        for record in history:
            append(EpochRecord.from_dict(record))
        yield report
