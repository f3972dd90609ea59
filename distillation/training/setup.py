"""What the trainings of a stage share, and what the parameters make of it: sets, models, recipes.

Teacher, control and distilled students are made here alone, so that they differ in nothing but what
the parameters say.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import torch

from distillation.base.params import ParamError, Params, is_pretrained
from distillation.base.workspace import TEACHER, Workspace
from distillation.data.prepared import PreparedData, Split, load_prepared
from distillation.data.rows import make_rows
from distillation.models.classifier import Classifier
from distillation.models.creation import create_classifier
from distillation.models.probing import check_training
from distillation.training.batches import ImageSet, TrainSet, batch_shape
from distillation.training.cropping import ResizedCrop
from distillation.training.labels import UNLABELED
from distillation.training.loop import Recipe
from distillation.training.optimizer import check_optimizer
from distillation.training.runtime import Runtime, make_runtime
from distillation.training.views import ViewSettings

STUDENT = "student"
"""The role of the small model; the large one's is `TEACHER`."""


class DataShape(Protocol):
    """What a model has to know of a data set."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the labels."""
        ...

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceData:
    """The splits a training needs, on its device."""

    train: TrainSet
    """All training images; its `samples` are the labelled ones, no other has a label here."""
    validation: ImageSet
    test: ImageSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What all trainings of a stage share."""

    params: Params
    data: PreparedData
    sets: DeviceData
    runtime: Runtime


def load_setup(params: Params, workspace: Workspace) -> Setup:
    """Read the prepared data and put it on the device.

    Raises:
        DistillationError: the device is not there, or the data is missing or damaged.
    """
    runtime = make_runtime(
        precision=params.precision, compiles=params.compile, device_name=workspace.device_name
    )
    data = load_prepared(workspace.prepared)
    return Setup(params=params, data=data, sets=to_device(data, runtime.device), runtime=runtime)


def to_device(data: PreparedData, device: torch.device) -> DeviceData:
    """Make what a training needs of a prepared set available on a device."""
    samples = torch.tensor(data.labeled)
    labels = torch.full((len(data.train),), UNLABELED)
    labels[samples] = torch.tensor(data.train.labels)[samples]
    return DeviceData(
        train=TrainSet(
            images=make_rows(data.train.images, device), labels=labels.to(device), samples=samples
        ),
        validation=_image_set(data.validation, device),
        test=_image_set(data.test, device),
    )


def distillation_set(setup: Setup) -> TrainSet:
    """Return what a student is distilled on: all training images, or the labelled ones."""
    train = setup.sets.train
    if not setup.params.use_unlabeled:
        return train
    return dataclasses.replace(train, samples=torch.arange(len(train)))


def control_set(setup: Setup) -> TrainSet:
    """Return what the control is trained on: the labelled images, for as many steps as others."""
    train = setup.sets.train
    return dataclasses.replace(train, repeats_to=len(train) if setup.params.use_unlabeled else 0)


def create_teacher(setup: Setup) -> Classifier:
    """Create the teacher as it is before its training, on the device.

    Raises:
        ModelError: the teacher's name, weights or stem cannot be used.
    """
    model = start_model(TEACHER, setup.params, setup.data, seed=setup.params.seed)
    return model.to(setup.runtime.device)


def create_student(setup: Setup, *, seed: int) -> Classifier:
    """Create the student as every method starts with it for this seed, on the device.

    Raises:
        ModelError: the student's name, weights or stem cannot be used.
    """
    return start_model(STUDENT, setup.params, setup.data, seed=seed).to(setup.runtime.device)


def start_model(role: str, params: Params, shape: DataShape, *, seed: int) -> Classifier:
    """Create teacher or student as it is before its training, on the CPU.

    Args:
        role: `TEACHER` or `STUDENT`.
        params: which model, with which weights.
        shape: size and classes of the images.
        seed: seed of what no weights are given for.

    Raises:
        ModelError: the name, the weights or the stem cannot be used.
    """
    return create_classifier(
        getattr(params, role),
        class_names=shape.class_names,
        image_size=shape.image_size,
        seed=seed,
        stem_stride=getattr(params, f"{role}_stem_stride"),
        pretrained=is_pretrained(params, role),
        checkpoint=getattr(params, f"{role}_checkpoint"),
        class_names_file=_class_names_file(role, params),
        will_train=role == STUDENT or params.teacher_epochs > 0,
        key=role,
    )


def is_trained(params: Params) -> bool:
    """Return whether the teacher has learned its classes: a random classifier teaches noise."""
    return is_given(params) or params.teacher_epochs > 0


def is_given(params: Params) -> bool:
    """Return whether the teacher starts from weights that somebody trained."""
    return is_pretrained(params, TEACHER) or params.teacher_checkpoint is not None


def describe_teacher(params: Params) -> dict[str, Any]:
    """Say where the teacher comes from, for a metrics file: `trained`, `checkpoint`.

    What a given checkpoint was trained on is not known here: labels may be among it that
    `labeled_fraction` leaves out.
    """
    checkpoint = params.teacher_checkpoint
    return {
        "trained": is_trained(params),
        "checkpoint": None if checkpoint is None else Path(checkpoint).name,
    }


def load_teacher(setup: Setup, path: Path) -> Classifier:
    """Create the teacher with the weights its training left in `path`, on the device.

    Raises:
        ModelError: the file is missing, damaged or another model's.
    """
    model = load_trained(TEACHER, setup.params, setup.data, path)
    return model.to(setup.runtime.device)


def load_trained(role: str, params: Params, shape: DataShape, path: Path) -> Classifier:
    """Create a model with the weights that a training left in `path`, on the CPU.

    Args:
        role: `TEACHER` or `STUDENT`.
        params: which model.
        shape: size and classes of the images.
        path: the weights.

    Raises:
        ModelError: the file is missing, damaged or another model's.
    """
    return create_classifier(
        getattr(params, role),
        class_names=shape.class_names,
        image_size=shape.image_size,
        seed=0,  # every weight comes from the file
        stem_stride=getattr(params, f"{role}_stem_stride"),
        checkpoint=path,
        key=role,
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


def _class_names_file(role: str, params: Params) -> Path | None:
    if role != TEACHER or params.teacher_class_names is None:
        return None
    return Path(params.teacher_class_names)


def _image_set(split: Split, device: torch.device) -> ImageSet:
    return ImageSet(
        images=make_rows(split.images, device), labels=torch.tensor(split.labels, device=device)
    )
