"""One arm of the comparison: measure a model before its training, train it, measure it after.

Teacher, control and distilled students go through the same function, so their metrics mean the
same. The test split is read here and only here: before and after the training, never within.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from distillation.data.packed import PackedData, Split
from distillation.data.rows import make_rows
from distillation.evaluation import Metrics, evaluate
from distillation.model_names import check_model_name
from distillation.models import Classifier, create_classifier
from distillation.params import Params
from distillation.runtime import Runtime
from distillation.training.batches import ImageSet, TrainSet
from distillation.training.loop import EpochRecord, FitResult, Recipe
from distillation.training.views import ViewSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceData:
    """The splits an arm needs, on its device."""

    train: TrainSet
    """All training images; its `samples` are the labelled ones."""
    validation: ImageSet
    test: ImageSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmResult:
    """Test metrics before training, after the last epoch and at the best epoch."""

    before: Metrics
    after: Metrics
    best: Metrics
    """At `best_epoch`, which was chosen on the validation split."""
    best_epoch: int
    history: list[EpochRecord]
    teacher_outputs: str = "none"
    """`none`: no teacher was used; `stored`: they were looked up; `live`: it ran in every step."""

    def flat(self) -> dict[str, float | int | str]:
        """Give the flat keys that every arm's metrics file has.

        Accuracy is in percent, macro-F1 a fraction, loss in nats, all on the test split.
        """
        return {
            "before_acc": round(self.before.acc, 4),
            "after_acc": round(self.after.acc, 4),
            "gain_acc": round(self.after.acc - self.before.acc, 4),
            "before_f1": round(self.before.f1, 6),
            "after_f1": round(self.after.f1, 6),
            "gain_f1": round(self.after.f1 - self.before.f1, 6),
            "before_loss": round(self.before.loss, 6),
            "after_loss": round(self.after.loss, 6),
            "best_acc": round(self.best.acc, 4),
            "best_f1": round(self.best.f1, 6),
            "best_epoch": self.best_epoch,
            "epochs": len(self.history),
            "teacher_outputs": self.teacher_outputs,
        }


def to_device(data: PackedData, device: torch.device) -> DeviceData:
    """Make what an arm needs of a packed set available on a device."""
    train = _image_set(data.train, device)
    return DeviceData(
        train=TrainSet(
            images=train.images, labels=train.labels, samples=torch.tensor(data.labeled)
        ),
        validation=_image_set(data.validation, device),
        test=_image_set(data.test, device),
    )


def create_teacher(params: Params, data: PackedData) -> Classifier:
    """Create the teacher as it is before its training, on the CPU.

    Raises:
        ModelError: the teacher's name, weights or stem cannot be used.
    """
    check_model_name(params.teacher, key="teacher")
    return _create(params.teacher, params, data, checkpoint=params.teacher_checkpoint)


def is_trained(params: Params) -> bool:
    """Tell whether the teacher has learned its classes: a random classifier teaches noise."""
    return params.teacher_epochs > 0 or params.teacher_checkpoint is not None


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


def create_student(params: Params, data: PackedData) -> Classifier:
    """Create the student as every arm starts with it, on the CPU.

    Raises:
        ModelError: the student's name, weights or stem cannot be used.
    """
    check_model_name(params.student, key="student")
    return _create(params.student, params, data, checkpoint=params.student_checkpoint)


def teacher_recipe(params: Params, *, view_seed: int) -> Recipe:
    """Give the recipe of the teacher's training; every epoch shows it another view."""
    return Recipe(
        epochs=params.teacher_epochs,
        batch_size=params.teacher_batch_size,
        learning_rate=params.teacher_learning_rate,
        weight_decay=params.weight_decay,
        warmup_fraction=params.warmup_fraction,
        seed=params.seed,
        views=view_settings(params, view_seed=view_seed),
        num_views=max(1, params.teacher_epochs),
    )


def student_recipe(params: Params, *, view_seed: int) -> Recipe:
    """Give the one recipe of every student: the control and the distilled ones."""
    return Recipe(
        epochs=params.epochs,
        batch_size=params.batch_size,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        warmup_fraction=params.warmup_fraction,
        seed=params.seed,
        views=view_settings(params, view_seed=view_seed),
        num_views=params.num_views,
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
    teacher_outputs: str = "none",
) -> ArmResult:
    """Measure, train, measure; leaves the weights of the best epoch in the model.

    Args:
        model: the classifier that `train` trains in place.
        train: runs the training.
        test: the test split.
        runtime: device and precision.
        teacher_outputs: where the training has the teacher's outputs from.
    """

    def measure() -> Metrics:
        return evaluate(model, test.images, test.labels, runtime=runtime)

    before = measure()
    fitted = train()
    after = measure() if fitted.history else before
    best = after
    if fitted.history:
        model.load_state_dict(fitted.best_state)
        if fitted.best_epoch != len(fitted.history):
            best = measure()
    return ArmResult(
        before=before,
        after=after,
        best=best,
        best_epoch=fitted.best_epoch,
        history=fitted.history,
        teacher_outputs=teacher_outputs,
    )


def _create(name: str, params: Params, data: PackedData, *, checkpoint: str | None) -> Classifier:
    return create_classifier(
        name,
        num_classes=data.num_classes,
        image_size=data.image_size,
        seed=params.seed,
        stem_stride=params.stem_stride,
        pretrained=params.pretrained,
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )


def _image_set(split: Split, device: torch.device) -> ImageSet:
    return ImageSet(
        images=make_rows(split.images, device), labels=torch.tensor(split.labels, device=device)
    )
