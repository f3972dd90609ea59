"""How teacher and students are trained, made of the parameters: one recipe for every student."""

from __future__ import annotations

from distillation.base.params import ParamError
from distillation.models.classifier import Classifier
from distillation.models.probing import check_training
from distillation.training.batches import TrainSet, batch_shape
from distillation.training.cropping import ResizedCrop
from distillation.training.loop import Recipe
from distillation.training.optimizer import check_optimizer
from distillation.training.setup import Setup
from distillation.training.views import ViewSettings


def teacher_recipe(setup: Setup, *, seed: int) -> Recipe:
    """Return the recipe of the teacher's training; every epoch shows it another view.

    Raises:
        OptimizerError: the teacher's optimizer or its options cannot be used.
    """
    params = setup.params
    options = dict(params.teacher_optimizer_options or {})
    check_optimizer(params.teacher_optimizer, options, key="teacher_optimizer")
    return Recipe(
        epochs=params.teacher_epochs,
        batch_size=params.teacher_batch_size,
        learning_rate=params.teacher_learning_rate,
        weight_decay=params.teacher_weight_decay,
        warmup_fraction=params.warmup_fraction,
        seed=seed,
        views=view_settings(setup),
        num_views=max(1, params.teacher_epochs),
        optimizer=params.teacher_optimizer,
        optimizer_options=options,
    )


def student_recipe(setup: Setup, *, seed: int) -> Recipe:
    """Return the one recipe of every student, the control and the distilled ones, for a seed.

    Raises:
        OptimizerError: the students' optimizer or its options cannot be used.
    """
    params = setup.params
    options = dict(params.optimizer_options or {})
    check_optimizer(params.optimizer, options, key="optimizer")
    return Recipe(
        epochs=params.epochs,
        batch_size=params.batch_size,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
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
