"""How teacher and students are trained, made of the parameters: one recipe for every student."""

from __future__ import annotations

import math

from distillation.base.params import ParamError, Params
from distillation.base.workspace import TEACHER
from distillation.models.classifier import Classifier
from distillation.models.probing import check_training
from distillation.training.batches import TrainSet, batch_shape
from distillation.training.cropping import ResizedCrop
from distillation.training.optimizer import check_optimizer
from distillation.training.setup import STUDENT, Setup, is_given
from distillation.training.values import Recipe
from distillation.training.views import ViewSettings

_RATE, _RATE_BATCH = 2.5e-3, 128
"""Muon's peak learning rate from scratch, and the size of batches it was found with."""
_FORGETTING = 7.0
"""Learning rate · weight decay · steps of a training from scratch."""
_SHORT_STEPS = 150
"""Shorter trainings forget less, by the cube of their share of these steps. The last 10 are what
running statistics of a normalisation average over, and as half a cosine ends flat, what weights
forget in those goes with 1 / steps³ (docs/tuning.md has what was tried)."""
_GIVEN_RATE, _GIVEN_FORGETTING = 0.2, 0.1
"""What either is multiplied by where a training starts from given weights."""


def choose_rate(params: Params, role: str, *, batch_size: int) -> float:
    """Return the peak learning rate of a role's training.

    Where the parameters leave it to the recipe it is Muon's, times the root of the batch size:
    a batch k times as large has a gradient whose noise is √k times smaller (Malladi et al., 2022,
    for Adam). Weights that are given want smaller steps.

    Args:
        params: all parameters.
        role: `TEACHER` or `STUDENT`.
        batch_size: that its batches have, which few images make smaller than the parameter.
    """
    prefix = "teacher_" if role == TEACHER else ""
    rate: float | None = getattr(params, f"{prefix}learning_rate")
    if rate is not None:
        return rate
    start = _GIVEN_RATE if is_given(params, role) else 1.0
    return _RATE * start * math.sqrt(batch_size / _RATE_BATCH)


def choose_decay(params: Params, role: str, *, num_steps: int, learning_rate: float) -> float:
    """Return the weight decay of a role's training.

    Weights that shrink by learning rate · decay in every step are an average over the updates of
    the last 1 / (learning rate · decay) steps. Where the parameters leave it to the recipe, that
    is the same share of every training, however long (Wang and Aitchison, arXiv 2405.13698): a
    decay that suits 4 epochs is too strong for 10. Given weights are to be kept, not averaged away.

    Args:
        params: all parameters.
        role: `TEACHER` or `STUDENT`.
        num_steps: of the whole training.
        learning_rate: its peak learning rate.
    """
    prefix = "teacher_" if role == TEACHER else ""
    decay: float | None = getattr(params, f"{prefix}weight_decay")
    if decay is not None:
        return decay
    start = _GIVEN_FORGETTING if is_given(params, role) else 1.0
    num_steps = max(1, num_steps)
    length = min(1.0, num_steps / _SHORT_STEPS) ** 3
    return _FORGETTING * start * length / (learning_rate * num_steps)


def teacher_recipe(setup: Setup, train: TrainSet, *, seed: int) -> Recipe:
    """Return the recipe of the teacher's training; every epoch shows it another view.

    Args:
        setup: data and parameters.
        train: what it is trained on.
        seed: of the training.

    Raises:
        OptimizerError: the teacher's optimizer or its options cannot be used.
    """
    params = setup.params
    options = dict(params.teacher_optimizer_options or {})
    check_optimizer(params.teacher_optimizer, options, key="teacher_optimizer")
    steps, batch_size = batch_shape(train.epoch_size, params.teacher_batch_size)
    num_steps = params.teacher_epochs * steps
    rate = choose_rate(params, TEACHER, batch_size=batch_size)
    return Recipe(
        epochs=params.teacher_epochs,
        batch_size=params.teacher_batch_size,
        learning_rate=rate,
        weight_decay=choose_decay(params, TEACHER, num_steps=num_steps, learning_rate=rate),
        warmup_fraction=params.warmup_fraction,
        seed=seed,
        views=view_settings(setup),
        num_views=max(1, params.teacher_epochs),
        optimizer=params.teacher_optimizer,
        optimizer_options=options,
    )


def student_recipe(
    setup: Setup, train: TrainSet, *, seed: int, epochs: int | None = None
) -> Recipe:
    """Return the one recipe of every student, the control and the distilled ones, for a seed.

    Args:
        setup: data and parameters.
        train: what it is trained on; its epochs are equally long for all students.
        seed: of the training.
        epochs: how many; None: as the parameters say.

    Raises:
        OptimizerError: the students' optimizer or its options cannot be used.
    """
    params = setup.params
    options = dict(params.optimizer_options or {})
    check_optimizer(params.optimizer, options, key="optimizer")
    steps, batch_size = batch_shape(train.epoch_size, params.batch_size)
    epochs = params.epochs if epochs is None else epochs
    rate = choose_rate(params, STUDENT, batch_size=batch_size)
    return Recipe(
        epochs=epochs,
        batch_size=params.batch_size,
        learning_rate=rate,
        weight_decay=choose_decay(params, STUDENT, num_steps=epochs * steps, learning_rate=rate),
        warmup_fraction=params.warmup_fraction,
        seed=seed,
        views=view_settings(setup),
        num_views=params.num_views,
        patience_epochs=params.patience_epochs,
        ema_decay=params.ema_decay,
        optimizer=params.optimizer,
        optimizer_options=options,
    )


def view_settings(setup: Setup) -> ViewSettings:
    """Return what a view may do to an image.

    Raises:
        ParamError: `augmentation` does not fit the size of the prepared training images.
    """
    params, size = setup.params, setup.data.image_size
    min_area, max_area = params.resized_crop_area
    min_aspect, max_aspect = params.resized_crop_aspect
    crop = ResizedCrop(
        size=size,
        min_area=min_area,
        max_area=max_area,
        min_aspect=min_aspect,
        max_aspect=max_aspect,
        interpolation=params.interpolation,
    )
    prepared_size = setup.data.train.images.shape[1]
    if params.augmentation == "crop" and prepared_size != size:
        raise ParamError(
            f"augmentation: got crop; must be resized_crop, since the training images were "
            f"prepared with {prepared_size} pixels and image_size is {size}"
        )
    return ViewSettings(
        view_seed=setup.data.view_seed,
        crop_padding=params.crop_padding if params.augmentation == "crop" else 0,
        horizontal_flip=params.horizontal_flip,
        resized_crop=crop if params.augmentation == "resized_crop" else None,
        color_jitter=params.color_jitter,
        mixup=params.mixup,
        cutmix=params.cutmix,
    )


def check_trainable(
    model: Classifier, train: TrainSet, recipe: Recipe, setup: Setup, *, key: str
) -> None:
    """Run a model forward and backward once, as its training will, but on two images at most.

    Args:
        model: it stays as it is.
        train: decides, with the recipe, how many images a batch has.
        recipe: its training; with no epochs nothing is run.
        setup: for the size of the images.
        key: the parameter that batch size was given as.

    Raises:
        ModelError: the model cannot be trained on such images, or not by so few at a time.
    """
    if recipe.epochs > 0:
        _, batch_size = batch_shape(train.epoch_size, recipe.batch_size)
        size = setup.data.image_size
        check_training(model, size, batch_size=min(batch_size, 2), key=key)
