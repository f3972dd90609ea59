"""The training loop, the same for the teacher, the control and every distilled student.

The loop is given a function that turns a batch into named loss terms; it knows nothing of
distillation. Data lies on the device as uint8, augmentation is tensor code on the batch. Test
images are not known here: the loop measures on the validation split alone.

Shapes: N training samples, B in a batch, H = W image size.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from distillation.errors import DistillationError
from distillation.evaluation import Metrics, evaluate
from distillation.models import Classifier
from distillation.training.optimizer import make_optimizer, make_schedule
from distillation.training.progress import StepProgress
from distillation.training.views import ViewSettings, make_views

# Turns images (B, 3, H, W) uint8 and labels (B,) int64 into unweighted, named loss terms and
# their weighted sum under the name "loss", all scalars.
TermsFunction = Callable[[Tensor, Tensor], dict[str, Tensor]]


class NonFiniteLossError(DistillationError):
    """A loss term became infinite or not a number; no step was taken with it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained; all arms of a comparison share one recipe."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_fraction: float
    seed: int
    """Seed of the order of the batches."""
    views: ViewSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images (N, H, W, 3) uint8 and labels (N,) int64, on the device."""

    images: Tensor
    labels: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one epoch did: mean loss terms, validation metrics, time."""

    epoch: int
    """1-based."""
    terms: dict[str, float]
    """Mean of every term over the epoch's samples; `loss` is the weighted sum."""
    validation: Metrics
    learning_rate: float
    """Of the epoch's last step."""
    seconds: float
    images_per_second: float

    def to_line(self, name: str, *, num_epochs: int) -> str:
        """Put the record on one line for a log."""
        terms = " ".join(f"{term} {value:.4f}" for term, value in self.terms.items())
        return (
            f"{name} epoch {self.epoch}/{num_epochs}: {terms} | validation "
            f"loss {self.validation.loss:.4f} acc {self.validation.acc:.2f} % "
            f"F1 {self.validation.f1:.4f} | {self.seconds:.1f} s, "
            f"{self.images_per_second:.0f} images/s"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
    """The history of a training and the weights of its best epoch; the model keeps the last's."""

    history: list[EpochRecord]
    best_epoch: int
    """1-based, the highest validation accuracy, the earliest of equals; 0 when none was run."""
    best_state: dict[str, Tensor]
    """State dict of the classifier at `best_epoch`."""


def fit(
    model: Classifier,
    compute_terms: TermsFunction,
    *,
    train: ImageSet,
    validation: ImageSet,
    recipe: Recipe,
    trained_with_model: tuple[nn.Module, ...] = (),
    name: str,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> FitResult:
    """Train a classifier and remember its best epoch on the validation split.

    Args:
        model: the classifier, trained in place.
        compute_terms: the objective.
        train: training images and labels.
        validation: images and labels the best epoch is chosen on.
        recipe: how to train.
        trained_with_model: further modules with parameters to train, e.g. a regressor.
        name: what to call the training in the progress display.
        on_epoch: called with each epoch's record as soon as there is one.

    Raises:
        NonFiniteLossError: a loss term is not finite.
    """
    modules = (model, *trained_with_model)
    optimizer = make_optimizer(
        modules, learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    num_samples = len(train.labels)
    num_steps = count_steps(num_samples, recipe.batch_size)
    schedule = make_schedule(
        optimizer,
        total_steps=recipe.epochs * num_steps,
        warmup_fraction=recipe.warmup_fraction,
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    history: list[EpochRecord] = []
    best_epoch, best_acc = 0, float("-inf")
    best_state = copy.deepcopy(model.state_dict())

    for epoch in range(1, recipe.epochs + 1):
        for module in modules:
            module.train()
        start = time.perf_counter()
        sums: dict[str, Tensor] = {}
        learning_rate = 0.0
        batches = iterate_batches(num_samples, recipe.batch_size, generator=generator)
        with StepProgress(name, epoch, recipe.epochs, num_steps) as progress:
            for step, samples in enumerate(batches, start=1):
                samples = samples.to(train.images.device)
                images = make_views(train.images, samples, epoch - 1, settings=recipe.views)
                terms = compute_terms(images, train.labels[samples])
                _check_finite(terms, name=name, epoch=epoch, step=step)
                optimizer.zero_grad()
                terms["loss"].backward()
                optimizer.step()
                learning_rate = float(schedule.get_last_lr()[0])
                schedule.step()
                for term, value in terms.items():
                    total = value.detach() * len(samples)
                    sums[term] = sums[term] + total if term in sums else total
                progress.advance()
        means = {term: float(value) / num_samples for term, value in sums.items()}
        seconds = time.perf_counter() - start
        record = EpochRecord(
            epoch=epoch,
            terms=means,
            validation=evaluate(model, validation.images, validation.labels),
            learning_rate=learning_rate,
            seconds=seconds,
            images_per_second=num_samples / seconds,
        )
        history.append(record)
        if record.validation.acc > best_acc:
            best_epoch, best_acc = epoch, record.validation.acc
            best_state = copy.deepcopy(model.state_dict())
        on_epoch(record)
    return FitResult(history=history, best_epoch=best_epoch, best_state=best_state)


def count_steps(num_samples: int, batch_size: int) -> int:
    """Give the number of batches an epoch has."""
    return -(-num_samples // batch_size)


def iterate_batches(
    num_samples: int, batch_size: int, *, generator: torch.Generator
) -> Iterator[Tensor]:
    """Give one epoch of shuffled sample indices, every sample once, on the CPU.

    Batches differ in size by one at most: a short last batch would have noisier normalisation
    statistics, and one of a single sample would have none.
    """
    order = torch.randperm(num_samples, generator=generator)
    yield from order.tensor_split(count_steps(num_samples, batch_size))


def _check_finite(terms: dict[str, Tensor], *, name: str, epoch: int, step: int) -> None:
    # The one place in the loop where the host waits for the device: a step taken with a loss
    # that is not finite would destroy the weights.
    if bool(torch.isfinite(terms["loss"])):
        return
    values = {term: float(value.detach()) for term, value in terms.items()}
    bad = [f"{term} = {value}" for term, value in values.items() if not math.isfinite(value)]
    raise NonFiniteLossError(
        f"{name}: the loss is not finite in epoch {epoch}, step {step}: "
        + ", ".join(bad)
        + "; a lower learning rate, alpha or feature_weight may help"
    )
