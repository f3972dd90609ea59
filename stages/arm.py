"""What every training stage does around its training: report, measure, write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dvclive import Live

from distillation.data.packed import PackedData
from distillation.files import write_json
from distillation.models import Classifier, save_weights
from distillation.training.arms import run_arm
from distillation.training.loop import EpochRecord, FitResult, ImageSet
from stages.workspace import LIVE, METRICS, MODELS

logger = logging.getLogger(__name__)

OnEpoch = Callable[[EpochRecord], None]


def run_arm_stage(
    arm: str,
    model: Classifier,
    train: Callable[[OnEpoch], FitResult],
    *,
    test: ImageSet,
    data: PackedData,
    epochs: int,
) -> None:
    """Run one arm and write its model, its metrics and its per-epoch files.

    Writes `models/<arm>.safetensors` (the best epoch's weights), `metrics/<arm>.json` and
    `metrics/live/<arm>/`.

    Args:
        arm: the arm's name in file names and in the summary.
        model: the classifier that `train` trains, on its device.
        train: runs the training and calls what it is given after every epoch.
        test: the test split, on the same device.
        data: the packed set, for its class names and its source.
        epochs: how many epochs `train` will run, for the log.
    """
    with _epoch_reporter(arm, epochs=epochs) as on_epoch:
        result = run_arm(model, lambda: train(on_epoch), test=test)
    save_weights(model, MODELS / f"{arm}.safetensors", class_names=data.class_names)
    write_json(METRICS / f"{arm}.json", {**result.flat(), "data": data.source})
    logger.info(
        "%s: test accuracy %.2f %% before, %.2f %% after, %.2f %% at epoch %d (best on validation)",
        arm,
        result.before.acc,
        result.after.acc,
        result.best.acc,
        result.best_epoch,
    )


@contextmanager
def _epoch_reporter(arm: str, *, epochs: int) -> Iterator[OnEpoch]:
    """Give a function that logs an epoch's record and appends it to DVCLive's files."""
    with Live(str(LIVE / arm), dvcyaml=None, save_dvc_exp=False) as live:

        def report(record: EpochRecord) -> None:
            logger.info("%s", record.to_line(arm, num_epochs=epochs))
            for term, value in record.terms.items():
                live.log_metric(f"train/{term}", value)
            live.log_metric("validation/loss", record.validation.loss)
            live.log_metric("validation/acc", record.validation.acc)
            live.log_metric("validation/f1", record.validation.f1)
            live.log_metric("learning_rate", record.learning_rate)
            live.log_metric("images_per_second", record.images_per_second)
            live.next_step()

        yield report
