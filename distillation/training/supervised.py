"""Training by labels alone: the teacher, and the control of the comparison."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from distillation.base.methods import CONTROL
from distillation.base.params import Params
from distillation.base.workspace import TEACHER, Workspace
from distillation.models.classifier import Classifier
from distillation.training.labels import MixedLabels, label_loss
from distillation.training.recipes import check_trainable, student_recipe, teacher_recipe
from distillation.training.setup import (
    Setup,
    control_set,
    create_student,
    create_teacher,
    is_trained,
    load_setup,
)
from distillation.training.teacher_check import check_given_teacher
from distillation.training.values import Training

logger = logging.getLogger(__name__)


class LabelObjective(nn.Module):
    """The cross-entropy of the labels.

    A teacher's are never smoothed: that would erase what it can pass on about the similarity of
    classes (Müller, Kornblith and Hinton, 2019).
    """

    def __init__(self, *, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(
        self,
        model: Classifier,
        images: Tensor,
        labels: Tensor | MixedLabels,
        teacher_outputs: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return the term `loss`, the mean over a batch; the teacher's outputs are not used."""
        return {"loss": label_loss(model(images).float(), labels, smoothing=self.smoothing)}


def open_teacher(params: Params, workspace: Workspace) -> tuple[Setup, Callable[[int], Training]]:
    """Read the data, and look at a teacher that is taken as it is; returns what makes its training.

    Raises:
        DistillationError: the data cannot be used, or the teacher knows nothing of its classes.
    """
    setup, may_be_poor = load_setup(params, workspace), params.allow_poor_teacher
    if not is_trained(params):
        logger.warning(
            "WARNING: the teacher is untrained (teacher_epochs: 0 and no teacher_checkpoint): "
            "its outputs are noise, and what is distilled from it says nothing about a method"
        )
    elif params.teacher_epochs == 0:
        warning = check_given_teacher(
            create_teacher(setup),
            setup.sets.validation,
            runtime=setup.runtime,
            is_allowed=may_be_poor,
        )
        if warning is not None:
            logger.warning("%s", warning)
    return setup, partial(teacher_training, setup)


def open_controls(
    params: Params, workspace: Workspace, *, epochs: int | None = None
) -> tuple[Setup, Callable[[int], Training]]:
    """Read the data; returns it with what makes the control's training for a seed.

    Args:
        params: all parameters.
        workspace: where the data is.
        epochs: how long it is trained; None: as long as the other students.

    Raises:
        DistillationError: the data cannot be used.
    """
    setup = load_setup(params, workspace)
    return setup, partial(control_training, setup, epochs=epochs)


def teacher_training(setup: Setup, seed: int) -> Training:
    """Make the teacher's training on the labelled images.

    Raises:
        DistillationError: model or recipe cannot be used, or not with such images and batches.
    """
    model, train = create_teacher(setup), setup.sets.train
    recipe = teacher_recipe(setup, train, seed=seed)
    check_trainable(model, train, recipe, setup, key="teacher_batch_size")
    return Training(
        name=TEACHER,
        model=model,
        objective=LabelObjective(),
        train=train,
        validation=setup.sets.validation,
        recipe=recipe,
    )


def control_training(setup: Setup, seed: int, *, epochs: int | None = None) -> Training:
    """Make the training of the control, the student by labels alone, for a seed.

    Args:
        setup: data and parameters.
        seed: of the training.
        epochs: as `open_controls` takes it.

    Raises:
        DistillationError: model or recipe cannot be used, or not with such images and batches.
    """
    model, train = create_student(setup, seed=seed), control_set(setup)
    recipe = student_recipe(setup, train, seed=seed, epochs=epochs)
    check_trainable(model, train, recipe, setup, key="batch_size")
    return Training(
        name=CONTROL,
        model=model,
        objective=LabelObjective(smoothing=setup.params.label_smoothing),
        train=train,
        validation=setup.sets.validation,
        recipe=recipe,
        settings={
            "use_unlabeled": setup.params.use_unlabeled,
            "label_smoothing": setup.params.label_smoothing,
        },
    )
