"""Train a student under a frozen teacher: the three experiments.

The objective is

    L = label_weight · CE + alpha · T² · KL(teacher ‖ student) + feature_weight · F

with F nothing in experiment 1, the cosine distance of pooled features in experiment 2, and the
error of a trained regressor in experiment 3. A loss file is imported only by the experiment that
uses it, so that editing one re-runs one stage.

Shapes: B batch, H = W image size.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillation.losses.logits import kl_divergence
from distillation.models import Classifier, freeze
from distillation.params import Params
from distillation.runtime import Runtime
from distillation.targets import TeacherTargets
from distillation.training.batches import ImageSet, TrainSet
from distillation.training.checkpoints import TrainingStates
from distillation.training.loop import EpochRecord, FitResult, Recipe, fit

FEATURE_LOSS_MODULES: dict[str, str | None] = {
    "exp1": None,
    "exp2": "distillation.losses.cosine",
    "exp3": "distillation.losses.regressor",
}
"""The module of each experiment's feature loss; it offers `build_feature_loss`."""

_REGRESSOR_SEED_OFFSET = 1


class DistillationObjective(nn.Module):
    """The weighted sum of an experiment's terms; holds the teacher and what is trained beside
    the student.
    """

    feature_loss: nn.Module | None

    def __init__(
        self,
        teacher: Classifier,
        *,
        feature_loss: nn.Module | None,
        features: str | None,
        label_weight: float,
        alpha: float,
        temperature: float,
        feature_weight: float,
    ) -> None:
        super().__init__()
        # In a tuple, the teacher is no submodule: its parameters stay out of the optimizer and
        # train() cannot reach it.
        self._teacher = (freeze(teacher),)
        self.feature_loss = feature_loss
        self.features = features
        self.label_weight = label_weight
        self.alpha = alpha
        self.temperature = temperature
        self.feature_weight = feature_weight

    def forward(
        self, student: Classifier, images: Tensor, labels: Tensor, targets: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the named terms of one batch.

        Args:
            student: the model to train, called once.
            images: (B, 3, H, W) uint8, seen by student and teacher alike.
            labels: (B,) int64.
            targets: what is known of the teacher's outputs, `logits` (B, K) and `features`
                (B, C, h, w); the teacher is run for what is missing and needed.

        Returns:
            Scalars: `label`, `logit` and, where there is one, `feature`, unweighted, and their
            weighted sum `loss`.
        """
        teacher_logits, teacher_features = self._teacher_outputs(images, targets)
        student_logits, student_features = self._outputs(student, images)
        terms = {
            "label": F.cross_entropy(student_logits.float(), labels),
            "logit": kl_divergence(student_logits, teacher_logits, temperature=self.temperature),
        }
        loss = self.label_weight * terms["label"] + self.alpha * terms["logit"]
        if self.feature_loss is not None:
            terms["feature"] = self.feature_loss(student_features, teacher_features)
            loss = loss + self.feature_weight * terms["feature"]
        return {"loss": loss, **terms}

    def settings(self) -> dict[str, Any]:
        """Give what sets this objective apart from another, besides code and weights."""
        return {
            "feature_loss": type(self.feature_loss).__name__,
            "label_weight": self.label_weight,
            "alpha": self.alpha,
            "temperature": self.temperature,
            "feature_weight": self.feature_weight,
        }

    def _teacher_outputs(
        self, images: Tensor, targets: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        if "logits" in targets and (self.feature_loss is None or "features" in targets):
            return targets["logits"], targets.get("features")
        (teacher,) = self._teacher
        with torch.no_grad():
            logits, features = self._outputs(teacher, images)
        return targets.get("logits", logits), features

    def _outputs(self, model: Classifier, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run a model once, for its features too where the objective needs them."""
        if self.feature_loss is None:
            return model(images), None
        return model.outputs(images)


def build_objective(
    experiment: str,
    params: Params,
    *,
    student: Classifier,
    teacher: Classifier,
    image_size: int,
    targets: TeacherTargets | None = None,
) -> DistillationObjective:
    """Build an experiment's objective; a regressor is initialised from the seed.

    Args:
        experiment: a key of `FEATURE_LOSS_MODULES`.
        params: the weights, the temperature and the seed.
        student: the student, to learn its number of feature channels.
        teacher: the teacher; it is frozen.
        image_size: H = W in pixels.
        targets: the teacher's stored outputs, which know the shape of its features.
    """
    feature_loss, features = None, None
    feature_weight = 0.0
    name = FEATURE_LOSS_MODULES[experiment]
    if name is not None:
        module = importlib.import_module(name)
        features = module.FEATURES
        teacher_shape = targets.plan.feature_shape if targets else teacher.feature_shape(image_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(params.seed + _REGRESSOR_SEED_OFFSET)
            feature_loss = module.build_feature_loss(
                student.feature_shape(image_size)[0], teacher_shape[0]
            )
        feature_loss.to(student.mean.device)
        feature_weight = params.feature_weight
    return DistillationObjective(
        teacher,
        feature_loss=feature_loss,
        features=features,
        label_weight=params.label_weight,
        alpha=params.alpha,
        temperature=params.temperature,
        feature_weight=feature_weight,
    )


def describe_teacher_outputs(
    objective: DistillationObjective, targets: TeacherTargets | None
) -> str:
    """Say where an arm has the teacher's outputs from, in a word for its metrics.

    `stored`: no forward pass of the teacher; `live`: the teacher runs in every step, for all
    or for what is not stored.
    """
    return "stored" if targets is not None and targets.has_features(objective.features) else "live"


def distill(
    student: Classifier,
    objective: DistillationObjective,
    *,
    train: TrainSet,
    validation: ImageSet,
    recipe: Recipe,
    runtime: Runtime,
    name: str,
    targets: TeacherTargets | None = None,
    states: TrainingStates | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> FitResult:
    """Train a student with a distillation objective.

    Args:
        student: the classifier, trained in place.
        objective: the weighted terms.
        train: the data set, and which of its samples to train on.
        validation: images and labels the best epoch is chosen on.
        recipe: how to train.
        runtime: device, precision, compilation.
        name: what to call the training in the progress display.
        targets: the teacher's stored outputs; None runs the teacher in every step.
        states: where the training's state is kept.
        on_epoch: called with every epoch's record.

    Raises:
        NonFiniteLossError: a term of the loss is not finite.
    """
    selected = None if targets is None else targets.select(objective.features)
    return fit(
        student,
        lambda images, labels, targets: objective(student, images, labels, targets),
        train=dataclasses.replace(train, targets=selected),
        validation=validation,
        recipe=recipe,
        runtime=runtime,
        trained_with_model=(objective,),
        name=name,
        states=states,
        on_epoch=on_epoch,
    )
