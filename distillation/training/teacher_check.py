"""Whether a teacher knows the classes at all: before anything is distilled from it.

A checkpoint that is read with another stem, order of classes or normalisation than it was trained
with loads without a word and predicts at random. Its accuracy on the validation split tells.

Shapes: N images, K classes.
"""

from __future__ import annotations

import numpy as np

from distillation.models.classifier import Classifier
from distillation.models.names import ModelError
from distillation.training.batches import ImageSet
from distillation.training.evaluation import predict_logits
from distillation.training.runtime import Runtime

MIN_SHARE = 0.1
"""Share of the way from guessing to never being wrong that a teacher must have gone."""


def check_given_teacher(
    model: Classifier, validation: ImageSet, *, runtime: Runtime, is_allowed: bool
) -> str | None:
    """Measure a teacher that is taken as it is.

    Args:
        model: the teacher.
        validation: images and labels of the validation split.
        runtime: device and precision.
        is_allowed: go on with a teacher that does hardly better than guessing.

    Returns:
        A warning where it does, and that is allowed.

    Raises:
        ModelError: it does, and that is not allowed; the message has the likely causes.
    """
    recall = measure_recall(model, validation, runtime=runtime)
    if not is_near_guessing(recall, model.num_classes):
        return None
    problem = (
        f"teacher: {model.name} with the given weights is right on {100 * recall:.1f} % of the "
        f"validation images (mean over the classes), where guessing gives "
        f"{100 / model.num_classes:.1f} %"
    )
    if is_allowed:
        return f"WARNING: {problem}: what is distilled from it says nothing about a method"
    raise ModelError(
        f"{problem}; likely causes: another stem stride (teacher_stem_stride), another order of "
        "the classes (teacher_class_names), another normalisation or image size (image_size), or "
        "weights of other classes; allowed: a teacher that knows the classes, or "
        "allow_poor_teacher=true"
    )


def measure_recall(model: Classifier, images: ImageSet, *, runtime: Runtime) -> float:
    """Return the mean over the classes of the share of their images that are recognised.

    Unlike the accuracy it is 1/K for whoever guesses or always says the same, however unevenly the
    images are spread over the classes.
    """
    logits = predict_logits(model, images.images, runtime=runtime)
    labels = images.labels.cpu().numpy()
    is_right = logits.argmax(dim=1).cpu().numpy() == labels
    counts = np.bincount(labels, minlength=model.num_classes)
    right = np.bincount(labels[is_right], minlength=model.num_classes)
    return float(np.mean(right[counts > 0] / counts[counts > 0]))


def is_near_guessing(recall: float, num_classes: int) -> bool:
    """Return whether a mean recall is hardly better than guessing among K classes."""
    guess = 1 / num_classes
    return recall < guess + MIN_SHARE * (1 - guess)
