"""What the trainings of a stage share, and what the parameters make of it: sets and models.

Teacher, control and distilled students are made here alone, so that they differ in nothing but what
the parameters say.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import torch

from distillation.base.params import Params, is_pretrained
from distillation.base.workspace import TEACHER, Workspace
from distillation.data.prepared import PreparedData, Split, load_prepared
from distillation.data.rows import make_rows
from distillation.models.classifier import Classifier
from distillation.models.creation import create_classifier
from distillation.models.names import ModelError
from distillation.training.batches import ImageSet, TrainSet
from distillation.training.labels import UNLABELED
from distillation.training.runtime import Runtime, make_runtime

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
    return is_given(params, TEACHER) or params.teacher_epochs > 0


def is_given(params: Params, role: str) -> bool:
    """Return whether teacher or student starts from weights that somebody trained."""
    return is_pretrained(params, role) or getattr(params, f"{role}_checkpoint") is not None


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
    if not path.is_file():
        raise ModelError(
            f"{path}: no such file; `dvc checkout {path}` brings it back, or run the stage that "
            "makes it"
        )
    return create_classifier(
        getattr(params, role),
        class_names=shape.class_names,
        image_size=shape.image_size,
        seed=0,  # every weight comes from the file
        stem_stride=getattr(params, f"{role}_stem_stride"),
        checkpoint=path,
        key=role,
        is_quiet=True,
    )


def _class_names_file(role: str, params: Params) -> Path | None:
    if role != TEACHER or params.teacher_class_names is None:
        return None
    return Path(params.teacher_class_names)


def _image_set(split: Split, device: torch.device) -> ImageSet:
    return ImageSet(
        images=make_rows(split.images, device), labels=torch.tensor(split.labels, device=device)
    )
