"""A row of the ladder in docs/tuning.md: a training by labels with a change no parameter makes.

`python -m benchmarks.ladder control --change near_identity --seed 1` trains it on the prepared
data of the folder it is started in and prints every epoch's validation accuracy; it writes no file.
Several changes can be combined, and `-S KEY=VALUE` sets parameters.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from distillation.base.allocator import keep_freed_memory
from distillation.base.errors import DistillationError
from distillation.base.methods import CONTROL
from distillation.base.params import load_params
from distillation.base.workspace import TEACHER, Workspace
from distillation.models.classifier import Classifier
from distillation.training import optimizer
from distillation.training.batches import batch_shape
from distillation.training.denormals import set_threads
from distillation.training.loop import fit
from distillation.training.setup import load_setup
from distillation.training.supervised import LabelObjective, control_training, teacher_training
from distillation.training.values import EpochRecord, Training

_SMALLER = ((0.4, 24), (0.7, 28))
"""Until which share of the epochs images have so many pixels."""


def near_identity(training: Training) -> Training:
    """Halve what depthwise convolutions start with, and add 1 in the middle of the kernel.

    airbench starts dense convolutions so (Jordan, arXiv 2404.00498).
    """
    for module in training.model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            height, width = module.kernel_size
            with torch.no_grad():
                module.weight.mul_(0.5)
                module.weight[:, 0, height // 2, width // 2] += 1.0
    return training


def classifier(training: Training, factor: float) -> Training:
    """Start the classifier at a factor of what timm draws."""
    for module in training.model.modules():
        if isinstance(module, nn.Linear):
            with torch.no_grad():
                module.weight.mul_(factor)
    return training


def batchnorm_momentum(training: Training, value: float) -> Training:
    """Let the running statistics follow the batches by another momentum than timm's 0.1."""
    for module in training.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = value
    return training


def linear_decay(training: Training) -> Training:
    """Let the learning rate fall to 0 on a line, not half a cosine (Li et al., arXiv 1905.04753).

    It changes the schedule of every training in this process.
    """

    def factor(step: int, *, total_steps: int, warmup_fraction: float) -> float:
        warmup_steps = round(warmup_fraction * total_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return max(0.0, 1.0 - (step - warmup_steps) / (total_steps - warmup_steps))

    optimizer.learning_rate_factor = factor
    return training


def forgetting(training: Training, product: float) -> Training:
    """Set the weight decay so that learning rate · weight decay · steps is this product."""
    decay = product / (training.recipe.learning_rate * training.num_steps)
    recipe = dataclasses.replace(training.recipe, weight_decay=decay)
    return dataclasses.replace(training, recipe=recipe)


def smaller_crops(training: Training) -> Training:
    """Show the middle of each view: 24 pixels for 40 % of the epochs, 28 for the next 30 %."""
    return dataclasses.replace(training, objective=_SmallerCrops(training))


_PLAIN: dict[str, Callable[[Training], Training]] = {
    "near_identity": near_identity,
    "linear_decay": linear_decay,
    "smaller_crops": smaller_crops,
}
_WITH_NUMBER: dict[str, Callable[[Training, float], Training]] = {
    "classifier": classifier,
    "batchnorm_momentum": batchnorm_momentum,
    "forgetting": forgetting,
}


class _SmallerCrops(LabelObjective):
    """The cross-entropy of the labels, of images whose border is cut off for some epochs."""

    def __init__(self, training: Training) -> None:
        super().__init__(smoothing=training.settings.get("label_smoothing", 0.0))
        recipe = training.recipe
        self.steps_done = 0
        self.epoch_steps, _ = batch_shape(training.train.epoch_size, recipe.batch_size)
        self.sizes = [(round(share * recipe.epochs), size) for share, size in _SMALLER]

    def forward(
        self, model: Classifier, images: Tensor, labels: Any, teacher_outputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the terms as `LabelObjective` does."""
        epoch = self.steps_done // self.epoch_steps
        self.steps_done += 1
        size = next((size for until, size in self.sizes if epoch < until), images.shape[-1])
        border = (images.shape[-1] - size) // 2
        middle = slice(border, border + size)
        images = images[..., middle, middle].contiguous(memory_format=torch.channels_last)
        return super().forward(model, images, labels, teacher_outputs)


def read_change(text: str) -> Callable[[Training], Training]:
    """Return what changes a training; it changes the model in place.

    Args:
        text: the name of a change, with `=VALUE` where it takes one.

    Raises:
        argparse.ArgumentTypeError: there is no such change, or its value is no number.
    """
    name, _, value = text.partition("=")
    if text in _PLAIN:
        return _PLAIN[text]
    with contextlib.suppress(KeyError, ValueError):
        change, number = _WITH_NUMBER[name], float(value)
        return lambda training: change(training, number)
    known = [*_PLAIN, *(f"{name}=NUMBER" for name in _WITH_NUMBER)]
    raise argparse.ArgumentTypeError(f"got {text!r}; must be one of {', '.join(known)}")


def main() -> None:
    """Train, and print every epoch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", allow_abbrev=False)
    parser.add_argument("role", choices=(CONTROL, TEACHER))
    parser.add_argument(
        "--change", action="append", default=[], type=read_change, metavar="NAME[=NUMBER]"
    )
    parser.add_argument("-S", action="append", default=[], dest="parameters", metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    keep_freed_memory()
    set_threads(torch.get_num_threads())
    pairs = (parameter.partition("=") for parameter in args.parameters)
    try:
        params = load_params(**{key: yaml.safe_load(value) for key, _, value in pairs})
        setup = load_setup(params, Workspace())
        make_training = teacher_training if args.role == TEACHER else control_training
        training = make_training(setup, args.seed)
    except DistillationError as error:
        parser.error(str(error))
    for change in args.change:
        training = change(training)
    minutes = 0.0

    def show(record: EpochRecord) -> None:
        nonlocal minutes
        minutes += record.compute_seconds / 60
        line = record.to_line(args.role, num_epochs=training.recipe.epochs)
        print(f"{line}, {minutes:.1f} min of cores so far", flush=True)

    fit(training, runtime=setup.runtime, on_epoch=show)


if __name__ == "__main__":
    main()
