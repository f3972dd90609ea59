"""Whether a model is right as often as it says: reliability diagrams and calibration errors.

Shapes: S trainings, N samples, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.special import softmax

from distillation.base.workspace import TEACHER
from distillation.report.drawing import new_figure, to_svg
from distillation.report.inputs import Inputs
from distillation.report.palette import MUTED, Style
from distillation.results.intervals import deviation, mean
from distillation.runs.calibration import NUM_BINS, calibration_error
from distillation.runs.predictions import Predictions, map_rows

_SIZE = (230, 215)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reliability:
    """The reliability diagram of a method."""

    method: str
    error: float
    """Expected calibration error, a fraction, mean over trainings."""
    error_std: float | None
    scaled_error: float
    """The same after temperature scaling, fitted on the validation split."""
    temperature: float
    """The fitted temperature, mean over trainings."""
    picture: Markup


def draw_calibration(
    inputs: Inputs, styles: Mapping[str, Style], colors: Mapping[str, str]
) -> list[Reliability]:
    """Draw a diagram for the teacher and for every method."""
    names = [name for name in (TEACHER, *inputs.methods) if name in inputs.predictions]
    return [
        _reliability(inputs.predictions[name], styles[name], colors, number=number)
        for number, name in enumerate(names)
    ]


def reliability_bins(
    predictions: Predictions,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Put all test predictions of all trainings into bins of equal width by their confidence.

    Returns:
        Mean confidence, accuracy (both fractions, NaN in an empty bin) and number of predictions,
        each (`NUM_BINS`,).
    """
    confidence = np.concatenate([map_rows(_confidence, one) for one in predictions.logits])
    is_right = (predictions.logits.argmax(axis=2) == predictions.labels).ravel()
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(bins, weights=confidence, minlength=NUM_BINS) / counts
        accuracy = np.bincount(bins, weights=is_right, minlength=NUM_BINS) / counts
    return mean_confidence, accuracy, counts


def _confidence(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return softmax(logits.astype(np.float64), axis=1).max(axis=1)


def _reliability(
    predictions: Predictions, style: Style, colors: Mapping[str, str], *, number: int
) -> Reliability:
    confidence, accuracy, counts = reliability_bins(predictions)
    shares = counts / counts.sum()
    with new_figure(*_SIZE) as (figure, axes):
        axes.grid(visible=True, axis="both")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
        edges = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
        # How many predictions a bin holds, along the bottom.
        axes.bar(edges, 0.25 * shares / shares.max(), width=0.9 / NUM_BINS, color=MUTED, alpha=0.3)
        filled = counts > 0
        axes.plot(confidence[filled], accuracy[filled], color=style.color, linewidth=1.4)
        axes.scatter(
            confidence[filled],
            accuracy[filled],
            s=8 + 42 * shares[filled] / shares.max(),
            color=style.color,
            zorder=3,
        )
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        picture = to_svg(
            figure,
            name=f"reliability{number}",
            title=f"Reliability diagram of {style.name}",
            colors=colors,
        )
    labels, temperatures = predictions.labels, predictions.temperatures
    errors = [calibration_error(logits, labels) for logits in predictions.logits]
    scaled_errors = [
        calibration_error(logits, labels, temperature=temperature)
        for logits, temperature in zip(predictions.logits, temperatures, strict=True)
    ]
    return Reliability(
        method=style.name,
        error=mean(errors),
        error_std=deviation(errors),
        scaled_error=mean(scaled_errors),
        temperature=float(temperatures.mean()),
        picture=picture,
    )
