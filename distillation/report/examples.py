"""Test images on which the control and a distilled student part, with what the teacher says.

Shapes: N samples, K classes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from distillation.base.methods import CONTROL
from distillation.base.workspace import TEACHER
from distillation.report.images import to_data_uri
from distillation.report.inputs import Inputs
from distillation.runs.predictions import Predictions, map_rows
from distillation.runs.seeds import best_by_validation

_MOST_SHOWN = 12
_NUM_PROBABILITIES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probability:
    """What a model gives a class, in percent."""

    class_name: str
    percent: float
    is_true: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A test image with what the models say of it."""

    index: int
    """Its place in the test split."""
    image: str
    true: str
    control: Probability
    student: Probability
    teacher: list[Probability]
    """The teacher's likeliest classes, and the true one where it is not among them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """The images of one kind."""

    title: str
    count: int
    shown: list[Example]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Both kinds, and whose models they are of."""

    method: str
    method_seed: int
    control_seed: int
    won: Group
    lost: Group


def find_examples(inputs: Inputs, *, method: str | None) -> Examples | None:
    """Find where one training of the control and one of a method are right and wrong.

    The method's training is the one whose weights are kept; the control's has the same seed where
    there is one. Shown first are the images on which their probabilities of the true class are
    furthest apart.

    Args:
        inputs: the report's.
        method: the distilled method; None where there is none.

    Returns:
        None without a control or without the method.
    """
    if method is None or not inputs.has_control:
        return None
    seed = int(best_by_validation(inputs.methods[method])["seed"])
    control = inputs.predictions[CONTROL]
    has_seed = seed in control.seeds.tolist()
    control_seed = seed if has_seed else int(best_by_validation(inputs.methods[CONTROL])["seed"])
    student_logits = _logits(inputs.predictions[method], seed)
    control_logits = _logits(control, control_seed)
    teacher_logits = inputs.predictions[TEACHER].logits[0]
    labels = inputs.data.test.labels
    is_right, student_probs = map_rows(_judge, student_logits, labels).T
    control_is_right, control_probs = map_rows(_judge, control_logits, labels).T
    lead = student_probs - control_probs

    def group(title: str, chosen: NDArray[np.bool_], order: NDArray[np.float64]) -> Group:
        indices = np.flatnonzero(chosen)
        first = indices[np.argsort(-order[indices], kind="stable")][:_MOST_SHOWN]
        return Group(
            title=title,
            count=len(indices),
            shown=[
                _example(inputs, int(one), control_logits, student_logits, teacher_logits)
                for one in first
            ],
        )

    return Examples(
        method=method,
        method_seed=seed,
        control_seed=control_seed,
        won=group(f"{method} right, control wrong", is_right > control_is_right, lead),
        lost=group(f"control right, {method} wrong", is_right < control_is_right, -lead),
    )


def _logits(predictions: Predictions, seed: int) -> NDArray[np.float32]:
    """Return (N, K) of the training with that seed."""
    return predictions.logits[predictions.seeds.tolist().index(seed)]


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    return softmax(logits.astype(np.float64), axis=1)


def _judge(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (rows, 2): 1 where the likeliest class is the true one, and that one's probability."""
    probs = _probabilities(logits)
    return np.stack([probs.argmax(axis=1) == labels, probs[np.arange(len(labels)), labels]], axis=1)


def _example(
    inputs: Inputs,
    index: int,
    *logits: NDArray[np.float32],
) -> Example:
    """Describe an image; logits (N, K) are the control's, the student's and the teacher's."""
    names, label = inputs.data.class_names, int(inputs.data.test.labels[index])
    control, student, teacher = (_probabilities(one[index : index + 1])[0] for one in logits)

    def describe(probs: NDArray[np.float64], place: int) -> Probability:
        return Probability(
            class_name=names[place],
            percent=100.0 * float(probs[place]),
            is_true=place == label,
        )

    places = np.argsort(-teacher, kind="stable")[:_NUM_PROBABILITIES].tolist()
    if label not in places:
        places[-1] = label
    return Example(
        index=index,
        image=to_data_uri(inputs.data.test.images[index]),
        true=names[label],
        control=describe(control, int(control.argmax())),
        student=describe(student, int(student.argmax())),
        teacher=[describe(teacher, place) for place in places],
    )
