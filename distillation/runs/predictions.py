"""The test predictions of a method's trainings, kept so that more can be asked of them later.

Shapes: S trainings, N samples, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from distillation.base.checksums import check_regular, describe_repair
from distillation.base.errors import DistillationError
from distillation.base.files import new_file

NUM_BINS = 15
"""Bins of the calibration error (Guo et al., 2017)."""

TOP5_CLASSES = 20
"""With fewer classes top-5 accuracy is not computed: guessing would score more than 25 %."""


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
    ) -> None:
        self.logits = logits
        """(S, N, K)"""
        self.seeds = seeds
        """(S,)"""
        self.labels = labels
        """(N,)"""
        self.class_names = class_names

    def save(self, path: Path) -> None:
        """Write a `.npz` file, whole or not at all; the same predictions give the same bytes."""
        with new_file(path) as new:
            np.savez(
                new,
                logits=self.logits,
                seeds=self.seeds,
                labels=self.labels,
                class_names=np.array(self.class_names),
            )


def load_predictions(path: Path) -> Predictions:
    """Read what `Predictions.save` wrote; the archive's checksums are compared.

    Raises:
        PredictionsError: the file is missing or damaged, or a logit is not finite.
    """
    try:
        check_regular(path)
        with np.load(path, allow_pickle=False) as content:
            predictions = Predictions(
                logits=content["logits"],
                seeds=content["seeds"],
                labels=content["labels"],
                class_names=tuple(str(name) for name in content["class_names"]),
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


def _inconsistency(predictions: Predictions) -> str | None:
    """Say where the arrays of a file do not fit each other, or hold no numbers."""
    logits = predictions.logits
    expected = (len(predictions.seeds), len(predictions.labels), len(predictions.class_names))
    if logits.shape != expected:
        return f"has logits of shape {logits.shape} for {expected} seeds, samples and classes"
    if not np.isfinite(logits).all():
        return "holds logits that are NaN or infinite"
    return None


def calibration_error(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    """Return the expected calibration error of the predicted class's probability, in 0 … 1.

    Σ_b n_b / N · |accuracy_b − confidence_b| over `NUM_BINS` bins of equal width (Guo et al.,
    2017, equation 3). scikit-learn has the bins' curve but not their sizes.

    Args:
        logits: (N, K).
        labels: (N,).
    """
    confidence = np.exp(log_softmax(logits.astype(np.float64), axis=1)).max(axis=1)
    is_right = logits.argmax(axis=1) == labels
    # Bin b holds (b / NUM_BINS, (b + 1) / NUM_BINS].
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))


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
    first = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    return 100.0 * float((first == labels[:, None]).any(axis=1).mean())
