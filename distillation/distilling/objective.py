"""Train a student under a frozen teacher: the three experiments, and further methods.

The objective is

    L = label_weight · CE + alpha · logit + feature_weight · F

with `logit` the T² · KL(teacher ‖ student) of the experiments or a method's own term in its place,
and F nothing in experiment 1, the cosine distance of pooled features in experiment 2, the error of
a trained regressor in experiment 3, or a method's own. CE is over samples with a label, the rest
over all that the batch holds. A loss file is imported only by the method that uses it, so that
editing one re-runs one stage.

Shapes: B batch, K classes, H = W image size.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from distillation.base.methods import EXPERIMENTS, module_name
from distillation.base.params import Params
from distillation.distilling.limits import check_features, check_limits, method_weight
from distillation.losses.logits import KLLogitLoss, standardize
from distillation.models.classifier import Classifier, freeze
from distillation.models.features import Shape
from distillation.training.batches import TrainSet, batch_shape
from distillation.training.labels import UNLABELED, MixedLabels, label_loss, own_labels

logger = logging.getLogger(__name__)

_REGRESSOR_SEED_OFFSET = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """How the terms of an objective are weighted."""

    label: float
    logit: float
    feature: float
    ramp_steps: int = 0
    """Over so many steps the feature term's weight rises linearly from 0; 0: it is constant."""


class DistillationObjective(nn.Module):
    """The weighted sum of a method's terms; holds the teacher and what is trained beside the
    student.
    """

    feature_loss: nn.Module | None
    num_steps: Tensor

    def __init__(
        self,
        teacher: Classifier,
        *,
        logit_loss: nn.Module,
        feature_loss: nn.Module | None = None,
        features: str | None = None,
        weights: Weights,
        standardize_logits: bool = False,
        labeled_share: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        # In a tuple, the teacher is no submodule: its parameters stay out of the optimizer and
        # train() cannot reach it.
        self._teacher = (freeze(teacher),)
        self.logit_loss = logit_loss
        self.feature_loss = feature_loss
        self.features = features
        self.weights = weights
        self.standardize_logits = standardize_logits
        self.labeled_share = labeled_share
        self.label_smoothing = label_smoothing
        # Part of the state that a killed training takes up again.
        self.register_buffer("num_steps", torch.zeros((), device=teacher.mean.device))

    def forward(
        self,
        student: Classifier,
        images: Tensor,
        labels: Tensor | MixedLabels,
        stored: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Compute the named terms of one batch.

        Args:
            student: the model to train, called once.
            images: (B, 3, H, W) uint8, seen by student and teacher alike.
            labels: (B,) int64, `UNLABELED` where there is none, or those of mixed views: the
                cross-entropy takes both, the logit loss the label of the larger share.
            stored: what is known of the teacher's outputs, `logits` (B, K) and `features`
                (B, C, h, w); the teacher is run for what is missing and needed.

        Returns:
            Scalars: `label`, `logit` and, where there is one, `feature`, unweighted, and their
            weighted sum `loss`.
        """
        teacher_logits, teacher_features = self._teacher_outputs(images, stored)
        student_logits, student_features = self._outputs(student, images)
        label = label_loss(
            student_logits.float(),
            labels,
            labeled_share=self.labeled_share,
            smoothing=self.label_smoothing,
        )
        if self.standardize_logits:
            student_logits, teacher_logits = (
                standardize(student_logits),
                standardize(teacher_logits),
            )
        logit = self.logit_loss(student_logits, teacher_logits, own_labels(labels))
        terms = {"label": label, "logit": logit}
        loss = self.weights.label * terms["label"] + self.weights.logit * terms["logit"]
        if self.feature_loss is not None:
            terms["feature"] = self.feature_loss(student_features, teacher_features)
            loss = loss + self._feature_weight() * terms["feature"]
        return {"loss": loss, **terms}

    @property
    def couples_samples(self) -> bool:
        """Return whether a loss compares the samples of a batch: `couples_samples` says it."""
        losses = (self.logit_loss, self.feature_loss)
        return any(getattr(loss, "couples_samples", False) for loss in losses)

    def settings(self) -> dict[str, Any]:
        """Return what sets this objective apart from another, besides code and weights."""
        return {
            "logit_loss": _describe(self.logit_loss),
            "feature_loss": _describe(self.feature_loss),
            "weights": dataclasses.asdict(self.weights),
            "standardize_logits": self.standardize_logits,
            "labeled_share": self.labeled_share,
            "label_smoothing": self.label_smoothing,
        }

    def _feature_weight(self) -> Tensor | float:
        if not self.weights.ramp_steps:
            return self.weights.feature
        if self.training:
            self.num_steps += 1
        return self.weights.feature * (self.num_steps / self.weights.ramp_steps).clamp(max=1.0)

    def _teacher_outputs(
        self, images: Tensor, stored: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        if "logits" in stored and (self.feature_loss is None or "features" in stored):
            return stored["logits"], stored.get("features")
        (teacher,) = self._teacher
        with torch.no_grad():
            logits, features = self._outputs(teacher, images)
        return stored.get("logits", logits), features

    def _outputs(self, model: Classifier, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run a model once, for its features (B, C, h, w) too where the objective needs them.

        Pooled features of a model without a map are one of a single position.
        """
        if self.feature_loss is None:
            return model(images), None
        logits, features = model.outputs(images)
        if features is not None and features.ndim == 2:
            features = features[:, :, None, None]
        return logits, features


def build_objective(
    method: str,
    params: Params,
    *,
    student: Classifier,
    teacher: Classifier,
    train: TrainSet,
    image_size: int,
    seed: int,
    teacher_shape: Shape | None = None,
) -> DistillationObjective:
    """Build an experiment's or another method's objective; a regressor is initialised from a seed.

    Args:
        method: a name `distillation.base.methods` knows.
        params: the weights, the temperature, the number of epochs.
        student: the student, to learn its number of feature channels.
        teacher: the teacher; it is frozen.
        train: what is trained on, to learn how many steps there will be and which share of the
            samples has labels.
        image_size: H = W in pixels.
        seed: seed of the training run.
        teacher_shape: that of the teacher's features, where it is known.

    Raises:
        MethodError: there is no such method.
        ModelError: student or teacher has no features of the kind that the method compares.
        ParamError: the method has no weight in `method_weights`, or its loss would be a constant
            with so few classes or images in a batch.
    """
    module = importlib.import_module(module_name(method))
    check_limits(
        method,
        module,
        num_classes=student.num_classes,
        batch_size=batch_shape(train.epoch_size, params.batch_size)[1],
        standardize_logits=params.standardize_logits,
    )
    logit_loss: nn.Module = KLLogitLoss(temperature=params.temperature)
    if hasattr(module, "build_logit_loss"):
        logit_loss = module.build_logit_loss(
            temperature=params.temperature, weight=method_weight(params, method)
        )
    feature_loss, feature_weight, ramp_steps = None, 0.0, 0
    if hasattr(module, "build_feature_loss"):
        if teacher_shape is None:
            teacher_shape = teacher.feature_shape(image_size)
        student_shape = student.feature_shape(image_size)
        features = {
            "teacher": (teacher.name, teacher_shape),
            "student": (student.name, student_shape),
        }
        check_features(method, module, features)
        for role, (name, shape) in features.items():
            if math.prod(shape[1:]) < getattr(module, "MIN_POSITIONS", 1):
                _warn_once(
                    f"WARNING: {method}: its feature term is constant for the {shape[1]} × "
                    f"{shape[2]} feature map of {name} at image_size {image_size}, so that this "
                    f"is experiment 1; use a larger image_size or a smaller {role}_stem_stride"
                )
                break
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + _REGRESSOR_SEED_OFFSET)
            feature_loss = module.build_feature_loss(student_shape[0], teacher_shape[0])
        feature_loss.to(student.mean.device)
        is_experiment = method in EXPERIMENTS
        feature_weight = params.feature_weight if is_experiment else method_weight(params, method)
        ramp_steps = _ramp_steps(module, params, train)
    return DistillationObjective(
        teacher,
        logit_loss=logit_loss,
        feature_loss=feature_loss,
        features=getattr(module, "FEATURES", None),
        weights=Weights(
            label=params.label_weight,
            logit=params.alpha,
            feature=feature_weight,
            ramp_steps=ramp_steps,
        ),
        standardize_logits=params.standardize_logits,
        labeled_share=_labeled_share(train),
        label_smoothing=params.label_smoothing,
    )


@functools.cache
def _warn_once(text: str) -> None:
    logger.warning("%s", text)


def _ramp_steps(module: ModuleType, params: Params, train: TrainSet) -> int:
    num_steps, _ = batch_shape(train.epoch_size, params.batch_size)
    return round(getattr(module, "RAMP_FRACTION", 0.0) * params.epochs * num_steps)


def _labeled_share(train: TrainSet) -> float:
    labels = train.labels[train.samples.to(train.labels.device)]
    return float((labels != UNLABELED).cpu().double().mean())  # MPS has no float64


def _describe(loss: nn.Module | None) -> str:
    """Return a loss's class and settings, numbers and all, as a text."""
    if loss is None:
        return "none"
    settings = {k: v for k, v in vars(loss).items() if isinstance(v, (int, float, str))}
    return f"{type(loss).__name__} {sorted(settings.items())}"
