"""Parameter groups and the learning-rate schedule."""

import itertools
import math

import pytest
import torch
from torch import nn

from distillation.models.classifier import create_classifier, freeze
from distillation.training.optimizer import learning_rate_factor, make_optimizer, make_schedule


def make_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_biases_and_norms_are_not_decayed():
    net = make_net()
    optimizer = make_optimizer([net], learning_rate=0.01, weight_decay=0.3)
    decay_of = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    found = {name: decay_of[id(parameter)] for name, parameter in net.named_parameters()}
    assert found == {
        "0.weight": 0.3,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "3.weight": 0.3,
        "3.bias": 0.0,
    }
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all(group["lr"] == 0.01 for group in optimizer.param_groups)


def test_decay_shrinks_weights_alone():
    """Without a gradient, AdamW multiplies what it decays by 1 − lr · decay."""
    net = make_net()
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer([net], learning_rate=0.1, weight_decay=0.5).step()
    for name, parameter in net.named_parameters():
        factor = 1 - 0.1 * 0.5 if parameter.ndim > 1 else 1.0
        assert torch.allclose(parameter, factor * before[name], rtol=1e-6, atol=0), name


def test_frozen_parameters_are_left_out_and_all_modules_are_in():
    first, second = make_net(), nn.Linear(3, 3)
    first[0].weight.requires_grad_(False)
    optimizer = make_optimizer([first, second], learning_rate=0.01, weight_decay=0.1)
    found = [id(p) for group in optimizer.param_groups for p in group["params"]]
    expected = [id(p) for m in (first, second) for p in m.parameters() if p.requires_grad]
    assert len(expected) == 7
    assert sorted(found) == sorted(expected)


def test_a_frozen_model_adds_nothing():
    model = freeze(create_classifier("test_resnet", num_classes=2, image_size=32, seed=0))
    optimizer = make_optimizer([make_net(), model], learning_rate=0.01, weight_decay=0.1)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def factors(total_steps, warmup_fraction):
    return [
        learning_rate_factor(step, total_steps=total_steps, warmup_fraction=warmup_fraction)
        for step in range(total_steps)
    ]


def test_schedule_by_hand():
    assert factors(8, 0.5) == pytest.approx(
        [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1.0, *((1 + math.cos(math.pi * k / 4)) / 2 for k in (1, 2, 3))]
    )
    assert factors(4, 0.0) == pytest.approx([(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])
    assert factors(1, 0.0) == [1.0]


@pytest.mark.parametrize("total_steps", [1, 2, 3, 10, 101, 1000])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.1, 0.15, 0.5, 0.9, 0.999])
def test_factor_rises_to_the_peak_and_falls(total_steps, warmup_fraction):
    found = factors(total_steps, warmup_fraction)
    peak = round(warmup_fraction * total_steps)
    assert all(0 < factor <= 1 for factor in found)
    assert all(a < b for a, b in itertools.pairwise(found[: peak + 1]))
    assert all(a > b for a, b in itertools.pairwise(found[peak:]))
    if peak < total_steps:
        assert found[peak] == 1.0
        assert found.count(1.0) == 1
    for behind in (total_steps, total_steps + 1, 10 * total_steps):
        factor = learning_rate_factor(
            behind, total_steps=total_steps, warmup_fraction=warmup_fraction
        )
        assert factor == 0.0


def test_the_end_is_near_zero():
    assert factors(1000, 0.1)[-1] < 1e-5


def test_the_warmup_is_linear():
    steps = [b - a for a, b in zip(factors(100, 0.2)[:20], factors(100, 0.2)[1:21], strict=True)]
    assert steps == pytest.approx([1 / 21] * 20)


def test_the_schedule_moves_every_group_step_by_step():
    net = make_net()
    optimizer = make_optimizer([net], learning_rate=0.02, weight_decay=0.1)
    schedule = make_schedule(optimizer, total_steps=10, warmup_fraction=0.3)
    seen = []
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(10):
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 1
        seen.append(rates.pop())
        optimizer.step()
        schedule.step()
    assert seen == pytest.approx([0.02 * factor for factor in factors(10, 0.3)])
    assert optimizer.param_groups[0]["lr"] == 0.0
