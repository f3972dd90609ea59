"""Train a student under a frozen teacher: the three experiments.

The objective is

    L = label_weight · CE + alpha · T² · KL(teacher ‖ student) + feature_weight · F

with F nothing in experiment 1, the cosine distance of pooled features in experiment 2, and the
error of a trained regressor in experiment 3. A loss file is imported only by the experiment that
uses it, so that editing one re-runs one stage.

Shapes: B batch, H = W image size.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillation.losses.logits import kl_divergence
from distillation.models import Classifier, freeze
from distillation.params import Params
from distillation.training.loop import EpochRecord, FitResult, ImageSet, Recipe, fit

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
        self.label_weight = label_weight
        self.alpha = alpha
        self.temperature = temperature
        self.feature_weight = feature_weight

    def forward(self, student: Classifier, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the named terms of one batch.

        Args:
            student: the model to train, called once.
            images: (B, 3, H, W) uint8, seen by student and teacher alike.
            labels: (B,) int64.

        Returns:
            Scalars: `label`, `logit` and, where there is one, `feature`, unweighted, and their
            weighted sum `loss`.
        """
        (teacher,) = self._teacher
        with torch.no_grad():
            teacher_logits, teacher_features = self._outputs(teacher, images)
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

    def _outputs(self, model: Classifier, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run a model once, for its features too where the objective needs them."""
        if self.feature_loss is None:
            return model(images), None
        return model.outputs(images)


def build_objective(
    experiment: str, params: Params, *, student: Classifier, teacher: Classifier, image_size: int
) -> DistillationObjective:
    """Build an experiment's objective; a regressor is initialised from the seed.

    Args:
        experiment: a key of `FEATURE_LOSS_MODULES`.
        params: the weights, the temperature and the seed.
        student: the student, to learn its number of feature channels.
        teacher: the teacher; it is frozen.
        image_size: H = W in pixels.
    """
    feature_loss = None
    feature_weight = 0.0
    module = FEATURE_LOSS_MODULES[experiment]
    if module is not None:
        channels = [count_feature_channels(model, image_size) for model in (student, teacher)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(params.seed + _REGRESSOR_SEED_OFFSET)
            feature_loss = importlib.import_module(module).build_feature_loss(*channels)
        feature_loss.to(student.mean.device)
        feature_weight = params.feature_weight
    return DistillationObjective(
        teacher,
        feature_loss=feature_loss,
        label_weight=params.label_weight,
        alpha=params.alpha,
        temperature=params.temperature,
        feature_weight=feature_weight,
    )


def count_feature_channels(model: Classifier, image_size: int) -> int:
    """Give the number of channels of a model's last feature map, by running one black image."""
    was_training = model.training
    model.eval()
    image = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8, device=model.mean.device)
    with torch.no_grad():
        channels = model.outputs(image).features.shape[1]
    model.train(was_training)
    return channels


def distill(
    student: Classifier,
    objective: DistillationObjective,
    *,
    train: ImageSet,
    validation: ImageSet,
    recipe: Recipe,
    name: str,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> FitResult:
    """Train a student with a distillation objective.

    Raises:
        NonFiniteLossError: a term of the loss is not finite.
    """
    return fit(
        student,
        lambda images, labels: objective(student, images, labels),
        train=train,
        validation=validation,
        recipe=recipe,
        trained_with_model=(objective,),
        name=name,
        on_epoch=on_epoch,
    )
