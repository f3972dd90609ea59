"""One training of an arm: measure a model before its training, train it, measure it after.

Teacher, control and distilled students go through the same function, so their metrics mean the
same. The test split is read here and only here: before and after the training, never within.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillation.data.packed import PackedData, Split
from distillation.data.rows import make_rows
from distillation.evaluation import Metrics, measure_logits, predict_logits
from distillation.model_names import check_model_name
from distillation.models import Classifier, create_classifier
from distillation.params import Params
from distillation.predictions import calibration_error
from distillation.runtime import Runtime
from distillation.training.batches import UNLABELED, ImageSet, TrainSet
from distillation.training.loop import EpochRecord, FitResult, Recipe
from distillation.training.views import ViewSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceData:
    """The splits an arm needs, on its device."""

    train: TrainSet
    """All training images; its `samples` are the labelled ones, no other has a label here."""
    validation: ImageSet
    test: ImageSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One training: test metrics before it, after its last epoch and at its best epoch."""

    seed: int
    before: Metrics
    after: Metrics
    best: Metrics
    """At `best_epoch`, which was chosen on the validation split."""
    best_epoch: int
    history: list[EpochRecord]
    logits: Tensor
    """(N, K) float32 on the CPU: of the test images, at `best_epoch`."""
    labels: NDArray[np.int64]
    """(N,) of the test images."""
    weights: dict[str, Tensor]
    """The classifier's state at `best_epoch`."""
    teacher_outputs: str = "none"
    """`none`: no teacher was used; `stored`: they were looked up; `live`: it ran in every step."""

    @property
    def calibration_error(self) -> float:
        """Give the expected calibration error on the test split at `best_epoch`."""
        return calibration_error(self.logits.numpy(), self.labels)

    @property
    def validation_acc(self) -> float | None:
        """Give the validation accuracy at `best_epoch` in percent; None when no epoch was run."""
        return self.history[self.best_epoch - 1].validation.acc if self.history else None

    def flat(self) -> dict[str, Any]:
        """Give the flat values that `results.combine_seeds` takes.

        Accuracy is in percent, macro-F1 a fraction, loss in nats, all on the test split but for
        `validation_acc`.
        """
        return {
            "before_acc": self.before.acc,
            "after_acc": self.after.acc,
            "before_f1": self.before.f1,
            "after_f1": self.after.f1,
            "before_loss": self.before.loss,
            "after_loss": self.after.loss,
            "best_acc": self.best.acc,
            "best_f1": self.best.f1,
            "best_ece": self.calibration_error,
            "best_epoch": self.best_epoch,
            "epochs": len(self.history),
            "validation_acc": self.validation_acc,
            "teacher_outputs": self.teacher_outputs,
        }


def to_device(data: PackedData, device: torch.device) -> DeviceData:
    """Make what an arm needs of a packed set available on a device."""
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


def distillation_set(train: TrainSet, params: Params) -> TrainSet:
    """Give what a student is distilled on: all training images, or the labelled ones."""
    if not params.use_unlabeled:
        return train
    return dataclasses.replace(train, samples=torch.arange(len(train)))


def control_set(train: TrainSet, params: Params) -> TrainSet:
    """Give what the control is trained on: the labelled images, for as many steps as the others."""
    return dataclasses.replace(train, repeats_to=len(train) if params.use_unlabeled else 0)


def create_teacher(params: Params, data: PackedData) -> Classifier:
    """Create the teacher as it is before its training, on the CPU.

    Raises:
        ModelError: the teacher's name, weights or stem cannot be used.
    """
    check_model_name(params.teacher, key="teacher")
    return _create(
        params.teacher, params, data, seed=params.seed, checkpoint=params.teacher_checkpoint
    )


def is_trained(params: Params) -> bool:
    """Tell whether the teacher has learned its classes: a random classifier teaches noise."""
    return params.teacher_epochs > 0 or params.teacher_checkpoint is not None


def describe_teacher(params: Params) -> dict[str, Any]:
    """Say where the teacher comes from, for a metrics file: model, `trained`, `checkpoint`.

    What a given checkpoint was trained on is not known here: labels may be among it that
    `labeled_fraction` leaves out.
    """
    checkpoint = params.teacher_checkpoint
    return {
        "model": params.teacher,
        "trained": is_trained(params),
        "checkpoint": None if checkpoint is None else Path(checkpoint).name,
    }


def load_teacher(params: Params, data: PackedData, path: Path) -> Classifier:
    """Create the teacher with the weights its training left in `path`, on the CPU.

    Raises:
        ModelError: the file is missing, damaged or another model's.
    """
    return create_classifier(
        params.teacher,
        num_classes=data.num_classes,
        image_size=data.image_size,
        seed=0,  # every weight comes from the file
        stem_stride=params.stem_stride,
        checkpoint=path,
    )


def create_student(params: Params, data: PackedData, *, seed: int) -> Classifier:
    """Create the student as every arm starts with it for this seed, on the CPU.

    Raises:
        ModelError: the student's name, weights or stem cannot be used.
    """
    check_model_name(params.student, key="student")
    return _create(params.student, params, data, seed=seed, checkpoint=params.student_checkpoint)


def teacher_recipe(params: Params, *, view_seed: int) -> Recipe:
    """Give the recipe of the teacher's training; every epoch shows it another view."""
    return Recipe(
        epochs=params.teacher_epochs,
        batch_size=params.teacher_batch_size,
        learning_rate=params.teacher_learning_rate,
        weight_decay=params.teacher_weight_decay,
        warmup_fraction=params.warmup_fraction,
        seed=params.seed,
        views=view_settings(params, view_seed=view_seed),
        num_views=max(1, params.teacher_epochs),
    )


def student_recipe(params: Params, *, view_seed: int, seed: int) -> Recipe:
    """Give the one recipe of every student, the control and the distilled ones, for a seed."""
    return Recipe(
        epochs=params.epochs,
        batch_size=params.batch_size,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        warmup_fraction=params.warmup_fraction,
        seed=seed,
        views=view_settings(params, view_seed=view_seed),
        num_views=params.num_views,
        patience_epochs=params.patience_epochs,
        ema_decay=params.ema_decay,
    )


def view_settings(params: Params, *, view_seed: int) -> ViewSettings:
    """Give what a view may do to an image."""
    return ViewSettings(
        view_seed=view_seed,
        crop_padding=params.crop_padding,
        horizontal_flip=params.horizontal_flip,
    )


def run_arm(
    model: Classifier,
    train: Callable[[], FitResult],
    *,
    test: ImageSet,
    runtime: Runtime,
    seed: int,
    teacher_outputs: str = "none",
) -> SeedResult:
    """Measure, train, measure; leaves the weights of the best epoch in the model.

    Args:
        model: the classifier that `train` trains in place.
        train: runs the training.
        test: the test split.
        runtime: device and precision.
        seed: of the training run.
        teacher_outputs: where the training has the teacher's outputs from.
    """

    def measure() -> tuple[Tensor, Metrics]:
        logits = predict_logits(model, test.images, runtime=runtime)
        return logits, measure_logits(logits, test.labels)

    logits, before = measure()
    fitted = train()
    after = best = before
    if fitted.history:
        logits, after = measure()
        best = after
        model.load_state_dict(fitted.best_state)
        if fitted.best_epoch != len(fitted.history):
            logits, best = measure()
    return SeedResult(
        seed=seed,
        before=before,
        after=after,
        best=best,
        best_epoch=fitted.best_epoch,
        history=fitted.history,
        logits=logits.cpu(),
        labels=test.labels.cpu().numpy(),
        weights=fitted.best_state,
        teacher_outputs=teacher_outputs,
    )


def _create(
    name: str, params: Params, data: PackedData, *, seed: int, checkpoint: str | None
) -> Classifier:
    return create_classifier(
        name,
        num_classes=data.num_classes,
        image_size=data.image_size,
        seed=seed,
        stem_stride=params.stem_stride,
        pretrained=params.pretrained,
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )


def _image_set(split: Split, device: torch.device) -> ImageSet:
    return ImageSet(
        images=make_rows(split.images, device), labels=torch.tensor(split.labels, device=device)
    )
