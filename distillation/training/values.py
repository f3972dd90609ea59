"""A training as a value: what is trained, on what and how; and what comes of it.

The objective is a module that turns a batch into named loss terms; nothing here knows of
distillation.

Shapes: B in a batch, H = W image size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from distillation.models.classifier import Classifier
from distillation.training.batches import ImageSet, TrainSet, batch_shape
from distillation.training.evaluation import Metrics
from distillation.training.views import ViewSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained; all methods of a comparison share one recipe."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_fraction: float
    seed: int
    """Seed of the training run: order of batches, order of views, dropout."""
    views: ViewSettings
    num_views: int
    """How many views a sample has; epochs show them in turn."""
    patience_epochs: int | None = None
    """Stop after so many epochs without a better validation accuracy; None: never."""
    ema_decay: float = 0.0
    """Decay of the moving average of the weights; 0: the weights themselves are measured."""
    optimizer: str = "adamw"
    """timm's name of the optimizer."""
    optimizer_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The optimizer's own keyword arguments, ready for JSON."""


CODE = ("base", "data", "models", "training")
"""The folders of this package whose code decides every training."""

_TIMES = ("seconds", "images_per_second", "compute_seconds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one epoch did: mean loss terms, validation metrics, time."""

    epoch: int
    """1-based."""
    terms: dict[str, float]
    """Mean of every term over the epoch's steps; `loss` is the weighted sum."""
    validation: Metrics
    learning_rate: float
    """Of the epoch's last step."""
    seconds: float
    images_per_second: float
    compute_seconds: float = 0.0
    """Time of the cores or GPUs it took, as `Runtime.compute_seconds` counts it."""

    def to_line(self, name: str, *, num_epochs: int) -> str:
        """Put the record on one line for a log."""
        terms = " ".join(f"{term} {value:.4f}" for term, value in self.terms.items())
        return (
            f"{name} epoch {self.epoch}/{num_epochs}: {terms} | validation "
            f"loss {self.validation.loss:.4f} acc {self.validation.acc:.2f} % "
            f"F1 {self.validation.f1:.4f} | {self.seconds:.1f} s, "
            f"{self.images_per_second:.0f} images/s"
        )

    def values(self) -> dict[str, float]:
        """Return the record's values by the names that curves have."""
        return {
            **{f"train/{term}": value for term, value in self.terms.items()},
            "validation/loss": self.validation.loss,
            "validation/acc": self.validation.acc,
            "validation/f1": self.validation.f1,
            "learning_rate": self.learning_rate,
            "images_per_second": self.images_per_second,
        }

    def without_times(self) -> dict[str, Any]:
        """Return all that is the same when the training is run again, ready for JSON."""
        values = dataclasses.asdict(self)
        return {key: values[key] for key in values if key not in _TIMES}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EpochRecord:
        """Undo `dataclasses.asdict`."""
        return cls(**{**values, "validation": Metrics(**values["validation"])})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
    """The history of a training and the weights of its best epoch; the model keeps the last's."""

    history: list[EpochRecord]
    best_epoch: int
    """1-based, the highest validation accuracy, the earliest of equals; 0 when none was run."""
    best_state: dict[str, Tensor]
    """State dict of the classifier at `best_epoch`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """One training as a value: all that decides it, and nothing of where and how it is run."""

    name: str
    """What to call it in logs and in the progress display."""
    model: Classifier
    """The classifier, trained in place, on its device."""
    objective: nn.Module
    """Called with the model, images (B, 3, H, W) uint8, labels (B,) int64, or `MixedLabels` where
    views are mixed, and the teacher's stored outputs by name, it returns unweighted, named loss
    terms and their weighted sum under the name `loss`, all scalars. Its own parameters are trained
    with the model's."""
    train: TrainSet
    """The data set, and which of its samples to train on."""
    validation: ImageSet
    """Images and labels the best epoch is chosen on."""
    recipe: Recipe
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What else decides the training, ready for JSON."""
    code: tuple[str, ...] = CODE
    """The files and folders of this package whose code decides it."""
    teacher_outputs: str = "none"
    """`none`: no teacher is used; `stored`: its outputs are looked up; `live`: it runs in every
    step."""
    couples_samples: bool = False
    """Whether its loss compares the samples of a batch, and is no mean over them: such a training
    stays on one device."""

    @property
    def num_steps(self) -> int:
        """Return the number of optimizer steps, unless patience ends the training earlier."""
        return self.recipe.epochs * batch_shape(self.train.epoch_size, self.recipe.batch_size)[0]
