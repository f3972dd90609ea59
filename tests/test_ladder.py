"""The changes behind the ladder in docs/tuning.md: each does what its row says, and trains."""

import argparse

import pytest
import torch
from torch import nn

from benchmarks import ladder
from distillation.base.workspace import Workspace
from distillation.training import optimizer
from distillation.training.loop import fit
from distillation.training.runtime import CPU
from tests.helpers.trainings import SIZE, Tiny


@pytest.fixture
def training(monkeypatch):
    """Return a training of 6 steps; the schedule is put back."""
    monkeypatch.setattr(optimizer, "learning_rate_factor", optimizer.learning_rate_factor)
    _, make_training = Tiny(student="test_efficientnet")(None, Workspace(device_name="cpu"))
    return make_training(0)


def change(training, *texts):
    for text in texts:
        training = ladder.read_change(text)(training)
    return training


def layers(training, kind):
    return [module for module in training.model.modules() if isinstance(module, kind)]


def test_depthwise_kernels_keep_half_and_get_a_middle(training):
    convolutions = layers(training, nn.Conv2d)
    before = [one.weight.detach().clone() for one in convolutions]
    change(training, "near_identity")
    num_changed = 0
    for convolution, drawn in zip(convolutions, before, strict=True):
        if convolution.weight.shape[1] == 1:
            num_changed += 1
            drawn *= 0.5
            drawn[:, 0, drawn.shape[2] // 2, drawn.shape[3] // 2] += 1.0
        assert torch.equal(convolution.weight, drawn)
    assert num_changed > 1


def test_values_are_taken(training):
    (head,) = layers(training, nn.Linear)
    before = head.weight.detach().clone()
    changes = ["classifier=0.1", "batchnorm_momentum=0.3", "forgetting=0.6"]
    changed = change(training, *changes)
    assert torch.equal(head.weight, 0.1 * before)
    assert {one.momentum for one in layers(training, nn.BatchNorm2d)} == {0.3}
    recipe = changed.recipe
    assert recipe.learning_rate * recipe.weight_decay * 6 == pytest.approx(0.6)


def test_the_rate_falls_on_a_line(training):
    change(training, "linear_decay")
    factors = [
        optimizer.learning_rate_factor(step, total_steps=10, warmup_fraction=0.2)
        for step in (0, 1, 2, 6, 10)
    ]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1.0, 0.5, 0.0])


def test_crops_grow_with_the_epochs(training, monkeypatch):
    monkeypatch.setattr(ladder, "_SMALLER", ((0.5, SIZE - 4),))
    changed = change(training, "smaller_crops")
    sizes = []
    changed.model.register_forward_pre_hook(
        lambda module, inputs: sizes.append(inputs[0].shape[-1]) if module.training else None
    )
    fit(changed, runtime=CPU)
    assert sizes == [SIZE - 4] * 3 + [SIZE] * 3


def test_all_train_together(training):
    numbers = {"classifier": 0.1, "batchnorm_momentum": 0.3, "forgetting": 7}
    changes = [*ladder._PLAIN, *(f"{name}={numbers[name]}" for name in ladder._WITH_NUMBER)]
    assert len(fit(change(training, *changes), runtime=CPU).history) == 2


@pytest.mark.parametrize("text", ["near", "classifier", "near_identity=2", "classifier=x", "x=1"])
def test_a_wrong_change_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be one of .*classifier=NUMBER"):
        ladder.read_change(text)
