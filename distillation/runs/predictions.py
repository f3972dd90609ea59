"""The test predictions of a method's trainings, kept so that more can be asked of them later.

Shapes: S trainings, N samples, K classes.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from distillation.base.checksums import check_regular, describe_repair
from distillation.base.errors import DistillationError
from distillation.base.files import new_file

TOP5_CLASSES = 20
"""With fewer classes top-5 accuracy is not computed: guessing would score more than 25 %."""

_PIECE_VALUES = 2**20
"""Logits that are computed with at a time, so that no float64 copy of all of them is made."""
_LOGITS_MEMBER = "logits.npy"
_ZIP_HEADER_BYTES = 30


class PredictionsError(DistillationError):
    """A file of predictions is missing or damaged."""


class Predictions:
    """The test logits of every training of one method, with the labels."""

    def __init__(
        self,
        *,
        logits: NDArray[np.float32],
        seeds: NDArray[np.int64],
        labels: NDArray[np.int64],
        class_names: tuple[str, ...],
        temperatures: NDArray[np.float64] | None = None,
    ) -> None:
        self.logits = logits
        """(S, N, K)"""
        self.seeds = seeds
        """(S,)"""
        self.labels = labels
        """(N,)"""
        self.class_names = class_names
        self.temperatures = np.ones(len(seeds)) if temperatures is None else temperatures
        """(S,): what calibrates each training's logits, fitted on the validation split; 1: as
        they are."""

    def save(self, path: Path) -> None:
        """Write a `.npz` file, whole or not at all; the same predictions give the same bytes."""
        with new_file(path) as new:
            np.savez(
                new,
                logits=self.logits,
                seeds=self.seeds,
                labels=self.labels,
                class_names=np.array(self.class_names),
                temperatures=self.temperatures,
            )


def load_predictions(path: Path) -> Predictions:
    """Read what `Predictions.save` wrote; the archive's checksums are compared.

    The logits are mapped: after the comparison, which reads them once in pieces, they are not in
    memory until they are used.

    Raises:
        PredictionsError: the file is missing or damaged, or a logit is not finite.
    """
    try:
        check_regular(path)
        with np.load(path, allow_pickle=False) as content:
            predictions = Predictions(
                logits=_map_logits(path),
                seeds=content["seeds"],
                labels=content["labels"],
                class_names=tuple(str(name) for name in content["class_names"]),
                temperatures=content["temperatures"],
            )
    # Whatever a damaged archive makes the reader stumble over, the answer is the same.
    except Exception as error:
        raise PredictionsError(
            f"{path}: no complete file of predictions ({error}); "
            f"{describe_repair(path, by='the training')}"
        ) from error
    if problem := _inconsistency(predictions):
        raise PredictionsError(f"{path}: {problem}; run the training again")
    return predictions


def _map_logits(path: Path) -> NDArray[np.float32]:
    """Map the logits of an archive once its checksum was compared; numpy maps no member of one."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        info = archive.getinfo(_LOGITS_MEMBER)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("its logits are compressed")
        with archive.open(info) as member:
            while member.read(2**20):  # to its end, where its checksum is compared
                pass
        file.seek(info.header_offset + _ZIP_HEADER_BYTES - 4)
        file.seek(sum(np.frombuffer(file.read(4), "<u2")), os.SEEK_CUR)  # its name, and what else
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"its logits are an array of version {version}")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise ValueError("its logits are Python objects")
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        return np.memmap(path, dtype, "r", file.tell(), shape, order)


def _inconsistency(predictions: Predictions) -> str | None:
    """Say where the arrays of a file do not fit each other, or hold no numbers."""
    logits = predictions.logits
    expected = (len(predictions.seeds), len(predictions.labels), len(predictions.class_names))
    if logits.shape != expected:
        return f"has logits of shape {logits.shape} for {expected} seeds, samples and classes"
    if predictions.temperatures.shape != predictions.seeds.shape:
        return f"has {predictions.temperatures.size} temperatures for {expected[0]} seeds"
    if not all(map_rows(lambda rows: np.isfinite(rows).all(1), one).all() for one in logits):
        return "holds logits that are NaN or infinite"
    return None


def map_rows(function: Callable[..., NDArray[Any]], *arrays: NDArray[Any]) -> NDArray[Any]:
    """Compute something of every row of arrays in pieces: only the results are in memory whole.

    Args:
        function: takes the same rows of all arrays, returns an array (rows, …).
        arrays: (N, …), N at least 1; the first decides how many rows are a piece.
    """
    size = max(1, _PIECE_VALUES // max(1, arrays[0][0].size))
    starts = range(0, len(arrays[0]), size)
    return np.concatenate([function(*(a[one : one + size] for a in arrays)) for one in starts])


def top5_accuracy(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float | None:
    """Return how often, in percent, the label is among the five classes with the largest logits.

    Of equal logits the first counts as the larger, as in `argmax`. It is scikit-learn's
    `top_k_accuracy_score`, without the two seconds it takes to import.

    Args:
        logits: (N, K).
        labels: (N,).

    Returns:
        None with fewer than `TOP5_CLASSES` classes.
    """
    if logits.shape[1] < TOP5_CLASSES:
        return None
    return 100.0 * float(map_rows(_is_in_top5, logits, labels).mean())


def _is_in_top5(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    first = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return (first == labels[:, None]).any(axis=1)
