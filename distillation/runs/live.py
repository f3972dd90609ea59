"""Learning curves that grow while a training runs, by DVCLive, and one log line per epoch."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distillation.training.loop import EpochRecord, Training

logger = logging.getLogger(__name__)


@contextmanager
def epoch_reporter(
    training: Training, directory: Path, *, history: Sequence[Mapping[str, Any]]
) -> Iterator[Callable[[EpochRecord], None]]:
    """Yield a function that logs an epoch's record and appends it to DVCLive's files.

    What a killed run had done is put into the files first: DVC deletes them before a stage runs.
    Where DVCLive is not installed there are no such files, and the log says so.

    Args:
        training: the training that is about to begin or to go on.
        directory: the files go into a folder below it, named by the seed.
        history: the records of the epochs that are done.
    """
    name, epochs = training.name, training.recipe.epochs
    directory = directory / f"seed{training.recipe.seed}"
    if history:
        logger.info("%s: going on after epoch %d of %d", name, len(history), epochs)
    if importlib.util.find_spec("dvclive") is None:
        logger.info("%s: DVCLive is not installed, so there will be no %s", name, directory)
        yield lambda record: logger.info("%s", record.to_line(name, num_epochs=epochs))
        return

    from dvclive import Live

    with Live(str(directory), dvcyaml=None, save_dvc_exp=False) as live:

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

        for record in history:
            append(EpochRecord.from_dict(dict(record)))
        yield report
