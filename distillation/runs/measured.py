"""Run one training and measure it: on the test split before it, after it and at its best epoch.

Teacher, control and distilled students go through the same function, so their metrics mean the
same. The test split is read here and only here: before and after the training, never within.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distillation.runs.calibration import calibration_error, fit_temperature
from distillation.runs.predictions import top5_accuracy
from distillation.training.batches import ImageSet
from distillation.training.checkpoints import TrainingStates
from distillation.training.evaluation import Metrics, measure_logits, predict_logits
from distillation.training.loop import fit
from distillation.training.runtime import Runtime
from distillation.training.values import EpochRecord, Training


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
    temperature: float
    """What calibrates the logits, fitted on the validation split at `best_epoch`."""
    teacher_outputs: str = "none"
    """As `Training` has it."""

    @property
    def validation_acc(self) -> float | None:
        """Return the validation accuracy at `best_epoch` in percent; None without any epoch."""
        return self.history[self.best_epoch - 1].validation.acc if self.history else None

    @property
    def compute_seconds(self) -> float:
        """Return the time of the cores or GPUs that the epochs took."""
        return sum(record.compute_seconds for record in self.history)

    def to_text(self) -> str:
        """Return the metrics on the test split in a line for a log."""
        return (
            f"before {self.before.to_text()}; final {self.after.to_text()}; "
            f"best epoch {self.best_epoch} {self.best.to_text()}"
        )

    def record(self) -> dict[str, Any]:
        """Return the flat values that `seeds.combine_seeds` takes.

        Accuracy is in percent, macro-F1 a fraction, loss in nats, all on the test split but for
        `validation_acc`. `best_top5`, in percent, is there with many classes alone.
        """
        logits = self.logits.numpy()
        top5 = top5_accuracy(logits, self.labels)
        return {
            "seed": self.seed,
            "before_acc": self.before.acc,
            "after_acc": self.after.acc,
            "before_f1": self.before.f1,
            "after_f1": self.after.f1,
            "before_loss": self.before.loss,
            "after_loss": self.after.loss,
            "best_acc": self.best.acc,
            "best_f1": self.best.f1,
            **({} if top5 is None else {"best_top5": top5}),
            "best_ece": calibration_error(logits, self.labels),
            "best_epoch": self.best_epoch,
            "epochs": len(self.history),
            "validation_acc": self.validation_acc,
            "teacher_outputs": self.teacher_outputs,
        }


def run_training(
    training: Training,
    *,
    test: ImageSet,
    runtime: Runtime,
    states: TrainingStates | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    on_step: Callable[[], None] = lambda: None,
) -> SeedResult:
    """Measure, train, measure; leaves the weights of the best epoch in the model.

    Args:
        training: what to train.
        test: the test split.
        runtime: device and precision.
        states: as `fit` takes them.
        on_epoch: as `fit` takes it.
        on_step: as `fit` takes it.
    """
    model = training.model

    def measure() -> tuple[Tensor, Metrics]:
        logits = predict_logits(model, test.images, runtime=runtime)
        return logits, measure_logits(logits, test.labels)

    logits, before = measure()
    fitted = fit(training, runtime=runtime, states=states, on_epoch=on_epoch, on_step=on_step)
    after = best = before
    if fitted.history:
        logits, after = measure()
        best = after
        model.load_state_dict(fitted.best_state)
        if fitted.best_epoch != len(fitted.history):
            logits, best = measure()
    validation = training.validation
    on_validation = predict_logits(model, validation.images, runtime=runtime).cpu().numpy()
    return SeedResult(
        seed=training.recipe.seed,
        before=before,
        after=after,
        best=best,
        best_epoch=fitted.best_epoch,
        history=fitted.history,
        logits=logits.cpu(),
        labels=test.labels.cpu().numpy(),
        temperature=fit_temperature(on_validation, validation.labels.cpu().numpy()),
        teacher_outputs=training.teacher_outputs,
    )
