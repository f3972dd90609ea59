"""Train a classifier by labels alone: the teacher, and the control of the comparison."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from distillation.models import Classifier
from distillation.runtime import Runtime
from distillation.training.batches import ImageSet, TrainSet
from distillation.training.checkpoints import TrainingStates
from distillation.training.loop import EpochRecord, FitResult, Recipe, fit


def train_supervised(
    model: Classifier,
    *,
    train: TrainSet,
    validation: ImageSet,
    recipe: Recipe,
    runtime: Runtime,
    name: str,
    states: TrainingStates | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> FitResult:
    """Train with the cross-entropy of the labels, without label smoothing.

    Smoothing a teacher's labels would erase what it can pass on about the similarity of classes
    (Müller, Kornblith and Hinton, 2019).

    Raises:
        NonFiniteLossError: the loss is not finite.
    """

    def compute_terms(
        images: Tensor, labels: Tensor, targets: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(model(images).float(), labels)}

    return fit(
        model,
        compute_terms,
        train=train,
        validation=validation,
        recipe=recipe,
        runtime=runtime,
        name=name,
        states=states,
        on_epoch=on_epoch,
    )
