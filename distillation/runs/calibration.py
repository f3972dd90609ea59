"""Whether a model is right as often as its probabilities claim, with and without scaling.

Shapes: N samples, K classes.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from distillation.runs.predictions import map_rows

NUM_BINS = 15
"""Bins of the calibration error (Guo et al., 2017)."""

_LARGEST_TEMPERATURE = 20.0


def calibration_error(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.int64], *, temperature: float = 1.0
) -> float:
    """Return the expected calibration error of the predicted class's probability, in 0 … 1.

    Σ_b n_b / N · |accuracy_b − confidence_b| over `NUM_BINS` bins of equal width (Guo et al.,
    2017, equation 3). scikit-learn has the bins' curve but not their sizes.

    Args:
        logits: (N, K).
        labels: (N,).
        temperature: what the logits are divided by before the softmax.
    """
    confidence = map_rows(partial(_confidence, temperature=temperature), logits)
    is_right = logits.argmax(axis=1) == labels
    # Bin b holds (b / NUM_BINS, (b + 1) / NUM_BINS].
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    """Return the temperature that makes the labels likeliest (Guo et al., 2017, section 4.2).

    It minimises the mean of −log softmax(logits / T) at the labels, for T in 1/20 … 20. It is to be
    fitted on images that were not trained on. A model that is too sure of everything is mended by
    it, one that is sure of the wrong images is not.

    Args:
        logits: (N, K), N at least 1.
        labels: (N,).
    """

    def loss(log_temperature: float) -> float:
        surprise = partial(_surprise, temperature=math.exp(log_temperature))
        return float(map_rows(surprise, logits, labels).mean())

    bound = math.log(_LARGEST_TEMPERATURE)
    return math.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x)


def _confidence(logits: NDArray[np.floating[Any]], *, temperature: float) -> NDArray[np.float64]:
    return np.exp(_log_probs(logits, temperature)).max(axis=1)


def _surprise(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.int64], *, temperature: float
) -> NDArray[np.float64]:
    return -np.take_along_axis(_log_probs(logits, temperature), labels[:, None], axis=1)[:, 0]


def _log_probs(logits: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    return log_softmax(logits.astype(np.float64) / temperature, axis=1)
