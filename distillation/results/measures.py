"""What a practitioner asks of predictions: recall, confusion, calibration, agreement.

Works on stored logits with NumPy and scikit-learn, and imports no torch.

Shapes: S trainings, N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix, recall_score

from distillation.base.methods import CONTROL
from distillation.results.intervals import deviation, mean
from distillation.runs.calibration import calibration_error
from distillation.runs.predictions import Predictions, map_rows, top5_accuracy

MAX_CONFUSION_CLASSES = 100
"""The file of measures lies in git, and its matrices grow with the square of the classes."""


def teacher_agreement(
    logits: NDArray[np.floating[Any]], teacher_logits: NDArray[np.floating[Any]]
) -> tuple[float, float]:
    """Say how alike a student (N, K) is to its teacher (N, K).

    Returns:
        The percentage of samples on which both predict the same class, and the mean
        KL(teacher ‖ student) of their probabilities, in nats.
    """
    same = logits.argmax(axis=1) == teacher_logits.argmax(axis=1)
    divergence = map_rows(_divergence, logits, teacher_logits)
    return 100.0 * float(same.mean()), float(divergence.mean())


def _divergence(
    logits: NDArray[np.floating[Any]], teacher_logits: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return KL(teacher ‖ student) (rows,) in nats."""
    student_log_probs = log_softmax(logits.astype(np.float64), axis=1)
    teacher_log_probs = log_softmax(teacher_logits.astype(np.float64), axis=1)
    return (np.exp(teacher_log_probs) * (teacher_log_probs - student_log_probs)).sum(axis=1)


def predicted_classes(predictions: Predictions, *, seed: int) -> pd.DataFrame:
    """Return every sample's class in one of the trainings, by name: `actual` and `predicted`."""
    logits = predictions.logits[predictions.seeds.tolist().index(seed)]
    numbers = {"actual": predictions.labels, "predicted": logits.argmax(axis=1)}
    names = pd.Index(predictions.class_names)
    return pd.DataFrame({key: pd.Categorical.from_codes(c, names) for key, c in numbers.items()})


def measure(predictions: Predictions, teacher: Predictions | None = None) -> dict[str, Any]:
    """Measure the trainings of one method, ready for JSON.

    Args:
        predictions: the method's.
        teacher: the teacher's, for the agreement; the first of its trainings counts.

    Returns:
        `accuracy` in percent, `calibration_error`, `scaled_calibration_error`, the same after each
        training's temperature, with many classes `top5_accuracy` in percent, with a teacher
        `teacher_agreement` in percent and `teacher_kl` in nats, each with mean, sample deviation
        (null for one training) and n; `recall` by class, a fraction, the mean over trainings, null
        for a class without an image; and up to `MAX_CONFUSION_CLASSES` classes `confusion`, counts
        summed over trainings, true class by row, predicted by column.
    """
    labels, classes = predictions.labels, list(range(len(predictions.class_names)))
    values_of: dict[str, list[float]] = {
        "accuracy": [],
        "calibration_error": [],
        "scaled_calibration_error": [],
    }
    if teacher is not None:
        values_of |= {"teacher_agreement": [], "teacher_kl": []}
    recalls = []
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for logits, temperature in zip(predictions.logits, predictions.temperatures, strict=True):
        predicted = logits.argmax(axis=1)
        values_of["accuracy"].append(100.0 * float((predicted == labels).mean()))
        values_of["calibration_error"].append(calibration_error(logits, labels))
        values_of["scaled_calibration_error"].append(
            calibration_error(logits, labels, temperature=temperature)
        )
        if (top5 := top5_accuracy(logits, labels)) is not None:
            values_of.setdefault("top5_accuracy", []).append(top5)
        if teacher is not None:
            agreement, divergence = teacher_agreement(logits, teacher.logits[0])
            values_of["teacher_agreement"].append(agreement)
            values_of["teacher_kl"].append(divergence)
        recalls.append(
            recall_score(labels, predicted, labels=classes, average=None, zero_division=0)
        )
        confusion += confusion_matrix(labels, predicted, labels=classes)
    return {
        **{name: spread(values) for name, values in values_of.items()},
        "recall": {
            name: round(float(recall), 6) if count else None
            for name, recall, count in zip(
                predictions.class_names,
                np.mean(recalls, axis=0),
                np.bincount(labels, minlength=len(classes)),
                strict=True,
            )
        },
        **({"confusion": confusion.tolist()} if len(classes) <= MAX_CONFUSION_CLASSES else {}),
    }


def share_of_gap_closed(*, method: float, control: float, teacher: float) -> float | None:
    """Return which share of the way from the control to the teacher a method has gone.

    Args:
        method: accuracy in percent, as the others.
        control: of the student trained by labels alone.
        teacher: of the teacher.

    Returns:
        0 for the control's accuracy, 1 for the teacher's, less than 0 below the control; None
        when the teacher is not ahead of the control: there is no gap to close.
    """
    return round((method - control) / (teacher - control), 4) if teacher > control else None


def spread(values: list[float]) -> dict[str, float | int | None]:
    """Return mean, sample deviation (None for one value) and n."""
    std = deviation(values)
    return {
        "mean": round(mean(values), 6),
        "std": None if std is None else round(std, 6),
        "n": len(values),
    }


def measure_methods(predictions: Mapping[str, Predictions]) -> dict[str, dict[str, Any]]:
    """Measure every method's predictions at its best epochs, ready for JSON.

    Args:
        predictions: by method, the teacher's under `teacher`.

    Returns:
        What `measures.measure` gives for each, and `gap_closed`: which share of the way from the
        control's accuracy to the teacher's a method has gone; None where there is no way to go.
    """
    teacher = predictions["teacher"]
    measured = {
        name: measure(of_method, None if name == "teacher" else teacher)
        for name, of_method in predictions.items()
    }
    for name in measured:
        if name != "teacher" and CONTROL in measured:
            measured[name]["gap_closed"] = share_of_gap_closed(
                method=measured[name]["accuracy"]["mean"],
                control=measured[CONTROL]["accuracy"]["mean"],
                teacher=measured["teacher"]["accuracy"]["mean"],
            )
    return measured
