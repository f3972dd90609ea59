"""The training loop, the same for the teacher, the control and every distilled student.

The loop knows nothing of distillation: the objective turns a batch into named loss terms, which are
summed on the device and read once an epoch. Nothing waits for it but the guard: with a fused
optimizer every hundred steps, with another in each.
Test images are not known here: the loop measures on the validation split alone.

Shapes: B in a batch, H = W image size.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from distillation.data.rows import Indices
from distillation.models.classifier import Classifier
from distillation.models.probing import head_parameters
from distillation.training.averaging import WeightAverage
from distillation.training.batches import TrainSet, batch_shape, iterate_batches, shuffle
from distillation.training.checkpoints import TrainingStates
from distillation.training.denormals import flushed_denormals
from distillation.training.evaluation import evaluate
from distillation.training.guard import NonFiniteGuard
from distillation.training.optimizer import is_muon, make_optimizer, make_schedule
from distillation.training.runtime import Runtime
from distillation.training.values import EpochRecord, FitResult, Recipe, Training
from distillation.training.views import view_of_epoch, views_of_passes


class _State:
    """Everything that changes from step to step, and can be saved and restored as a whole."""

    def __init__(
        self,
        model: Classifier,
        modules: nn.ModuleList,
        recipe: Recipe,
        *,
        num_steps: int,
        heads: Collection[Tensor],
    ) -> None:
        self.model = model
        self.modules = modules
        device = model.mean.device
        self.cuda_devices = [device] if device.type == "cuda" else []
        self.optimizer = make_optimizer(
            modules,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            name=recipe.optimizer,
            options=recipe.optimizer_options,
            heads=heads,
        )
        self.schedule = make_schedule(
            self.optimizer,
            total_steps=recipe.epochs * num_steps,
            warmup_fraction=recipe.warmup_fraction,
        )
        self.average = WeightAverage(model, decay=recipe.ema_decay) if recipe.ema_decay else None
        self.order_generator = torch.Generator().manual_seed(recipe.seed)
        self.history: list[EpochRecord] = []
        self.best_epoch, self.best_acc = 0, float("-inf")
        self.best_state = self._copy_weights()

    @property
    def measured(self) -> Classifier:
        """Return the classifier that is measured and kept: the average where there is one."""
        return self.model if self.average is None else self.average.model

    def has_lost_patience(self, patience_epochs: int | None) -> bool:
        """Return whether the last so many epochs were none the best."""
        if patience_epochs is None or not self.history:
            return False
        return len(self.history) - self.best_epoch >= patience_epochs

    def add(self, record: EpochRecord) -> None:
        """Take an epoch into the history; its weights too when it is the best so far."""
        self.history.append(record)
        if record.validation.acc > self.best_acc:
            self.best_epoch, self.best_acc = record.epoch, record.validation.acc
            self.best_state = self._copy_weights()

    def state(self) -> dict[str, Any]:
        cuda = [torch.cuda.get_rng_state(device) for device in self.cuda_devices]
        return {
            "modules": self.modules.state_dict(),
            "average": None if self.average is None else self.average.state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order_generator": self.order_generator.get_state(),
            "generators": [torch.get_rng_state(), *cuda],
            "history": [dataclasses.asdict(record) for record in self.history],
            "best_epoch": self.best_epoch,
            "best_acc": self.best_acc,
            "best_state": self.best_state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.modules.load_state_dict(state["modules"])
        if self.average is not None:
            self.average.restore(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.order_generator.set_state(state["order_generator"])
        cpu, *cuda = state["generators"]
        torch.set_rng_state(cpu)
        for device, generator in zip(self.cuda_devices, cuda, strict=False):
            torch.cuda.set_rng_state(generator, device)
        self.history = [EpochRecord.from_dict(record) for record in state["history"]]
        self.best_epoch, self.best_acc = state["best_epoch"], state["best_acc"]
        self.best_state = state["best_state"]

    def _copy_weights(self) -> dict[str, Tensor]:
        weights = self.measured.state_dict()
        return {name: value.detach().clone() for name, value in weights.items()}


def _find_heads(training: Training) -> list[Tensor]:
    """Return what an optimizer for hidden layers is to leave alone; no other asks."""
    if not is_muon(training.recipe.optimizer):
        return []
    first = torch.zeros(1, dtype=torch.int64)
    image = training.validation.images.take(Indices(first, first.to(training.model.mean.device)))
    heads = head_parameters(training.model, image.permute(0, 3, 1, 2))
    return [*heads, *training.objective.parameters()]


def _choose_views(train: TrainSet, num_drawn: int, *, epoch: int, recipe: Recipe) -> int | Tensor:
    """Return the view an epoch (0-based) shows, or one per image when samples come repeatedly."""
    if train.epoch_size > len(train.samples):
        return views_of_passes(num_drawn, len(train.samples), epoch=epoch, seed=recipe.seed)
    return view_of_epoch(epoch, num_views=recipe.num_views, seed=recipe.seed)


def fit(
    training: Training,
    *,
    runtime: Runtime,
    states: TrainingStates | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    on_step: Callable[[], None] = lambda: None,
) -> FitResult:
    """Train a classifier and remember its best epoch on the validation split.

    Args:
        training: what to train, on what, and how.
        runtime: device, precision, compilation.
        states: where the state is kept after every epoch, and taken from when there is one.
        on_epoch: called with the record of every epoch that is run here, as soon as there is one.
        on_step: called after every step.

    Raises:
        NonFiniteLossError: a loss term is not finite.
    """
    model, objective, recipe = training.model, training.objective, training.recipe
    train, validation = training.train, training.validation
    ranks = runtime.ranks
    ranks.prepare(model)
    modules = nn.ModuleList((model, objective))
    num_steps, batch_size = batch_shape(train.epoch_size, recipe.batch_size)
    cuda_devices = [runtime.device] if runtime.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda_devices):
        torch.manual_seed(recipe.seed)  # for models with dropout or stochastic depth
        state = _State(model, modules, recipe, num_steps=num_steps, heads=_find_heads(training))
        saved = ranks.from_first(lambda: None if states is None else states.load())
        if saved is not None:
            state.restore(saved)
        compute_terms = ranks.spread(
            modules,
            runtime.compile(
                lambda images, labels, outputs: objective(model, images, labels, outputs)
            ),
            batch_size=batch_size,
        )
        optimizer, schedule = state.optimizer, state.schedule
        guard = NonFiniteGuard(optimizer, name=training.name)

        for epoch in range(len(state.history) + 1, recipe.epochs + 1):
            if state.has_lost_patience(recipe.patience_epochs):
                break
            modules.train()
            ranks.draw_apart(recipe.seed, epoch=epoch)
            start, compute_start = time.perf_counter(), runtime.compute_seconds()
            sums: dict[str, Tensor] = {}
            learning_rate = 0.0
            num_drawn = num_steps * batch_size
            order = shuffle(train.samples, num_drawn, generator=state.order_generator)
            view = _choose_views(train, num_drawn, epoch=epoch - 1, recipe=recipe)
            if isinstance(view, Tensor):
                view = ranks.take_shares(view, batch_size)
            batches = iterate_batches(
                train,
                ranks.take_shares(order, batch_size),
                ranks.share_size(batch_size),
                view,
                views=recipe.views,
            )
            with flushed_denormals():
                for step, batch in enumerate(batches, start=1):
                    with runtime.autocast():
                        terms = compute_terms(batch.images, batch.targets, batch.teacher_outputs)
                    means = ranks.mean(terms)
                    # Where it waits for a GPU, it does so before the backward pass is queued, and
                    # the optimizer's many kernels are queued while that runs.
                    guard.watch(means, epoch=epoch, step=step)
                    optimizer.zero_grad()
                    terms["loss"].backward()
                    optimizer.step()
                    learning_rate = float(schedule.get_last_lr()[0])
                    schedule.step()
                    if state.average is not None:
                        state.average.update(model)
                    for term, value in means.items():
                        value = value.detach()
                        sums[term] = sums[term] + value if term in sums else value.clone()
                    on_step()
                guard.check(epoch=epoch)
                epoch_means = {term: float(value) / num_steps for term, value in sums.items()}
                seconds = time.perf_counter() - start
                compute_seconds = runtime.compute_seconds() - compute_start
                metrics = ranks.from_first(
                    lambda: evaluate(
                        state.measured, validation.images, validation.labels, runtime=runtime
                    )
                )
            record = EpochRecord(
                epoch=epoch,
                terms=epoch_means,
                validation=metrics,
                learning_rate=learning_rate,
                seconds=seconds,
                images_per_second=num_drawn / seconds,
                compute_seconds=compute_seconds,
            )
            state.add(record)
            if states is not None:
                states.save(state.state())
            on_epoch(record)
        if state.average is not None:
            model.load_state_dict(state.measured.state_dict())
    return FitResult(
        history=state.history, best_epoch=state.best_epoch, best_state=state.best_state
    )
