"""Learning curves that grow while a training runs, by DVCLive and trackers; a line per epoch."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distillation.runs.trackers import Log
from distillation.training.values import EpochRecord, Training

logger = logging.getLogger(__name__)

_STEP_SIGNAL = "DVCLIVE_STEP_COMPLETED"


@contextmanager
def epoch_reporter(
    training: Training, directory: Path, *, history: Sequence[Mapping[str, Any]], track: Log
) -> Iterator[Callable[[EpochRecord], None]]:
    """Yield a function that logs an epoch's record and appends it to DVCLive's files.

    What a killed run had done is put there first: DVC deletes the files before a stage runs, and
    a tracker has a new run. Where DVCLive is not installed there are no files, and the log says so.

    Args:
        training: the training that is about to begin or to go on.
        directory: the files go into a folder below it, named by the seed.
        history: the records of the epochs that are done.
        track: takes the same values for the trackers.
    """
    name, epochs = training.name, training.recipe.epochs
    directory = directory / f"seed{training.recipe.seed}"
    if history:
        logger.info("%s: going on after epoch %d of %d", name, len(history), epochs)
    with _open_files(name, directory) as append:

        def keep(record: EpochRecord) -> None:
            values = record.values()
            append(record.epoch, values)
            track(record.epoch, values)

        def report(record: EpochRecord) -> None:
            logger.info("%s", record.to_line(name, num_epochs=epochs))
            keep(record)

        for record in history:
            keep(EpochRecord.from_dict(dict(record)))
        yield report


@contextmanager
def _open_files(name: str, directory: Path) -> Iterator[Log]:
    if importlib.util.find_spec("dvclive") is None:
        logger.info("%s: DVCLive is not installed, so there will be no %s", name, directory)
        yield lambda epoch, values: None
        return

    from dvclive import Live

    live = Live(str(directory), dvcyaml=None, save_dvc_exp=False)

    def append(epoch: int, values: Mapping[str, float]) -> None:
        live.step = epoch
        for key, value in values.items():
            live.log_metric(key, value)
        live.next_step()

    try:
        yield append
    finally:
        try:
            live.end()
        except FileNotFoundError as error:
            # Seeds side by side share the file that tells an editor of a step: one has removed it.
            if Path(str(error.filename)).name != _STEP_SIGNAL:
                raise
