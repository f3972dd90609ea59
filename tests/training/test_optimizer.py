"""Optimizers by timm's name, parameter groups and the learning-rate schedule."""

import itertools
import math
import re

import pytest
import timm
import timm.optim.muon
import torch
from timm.optim import get_optimizer_info, list_optimizers
from timm.optim._optim_factory import OptimInfo, default_registry
from torch import nn

from distillation.models.classifier import freeze
from distillation.models.creation import create_classifier
from distillation.training.checkpoints import TrainingStates
from distillation.training.optimizer import (
    OptimizerError,
    check_optimizer,
    learning_rate_factor,
    make_groups,
    make_optimizer,
    make_schedule,
)

OPTIMIZERS = {
    "adamw": {},
    "sgd": {"momentum": 0.8},
    "lamb": {},
    "lion": {"betas": [0.9, 0.95]},
    "adopt": {},
    "adafactorbv": {},
    "muon": {},
    "lookahead_adamw": {},
}


def make_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


class Training:
    """The small net with its optimizer and schedule, the same every time."""

    def __init__(self, name="adamw", **options):
        torch.manual_seed(0)
        self.net = make_net()
        self.optimizer = make_optimizer(
            [self.net], learning_rate=0.02, weight_decay=0.1, name=name, options=options
        )
        self.schedule = make_schedule(self.optimizer, total_steps=12, warmup_fraction=0.25)

    def train(self, first, last):
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            logits = self.net(torch.randn(8, 3, 3, 3, generator=generator))
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(logits, torch.arange(8) % 2).backward()
            self.optimizer.step()
            self.schedule.step()
        return self.net.state_dict()

    def parts(self):
        return {"net": self.net, "optimizer": self.optimizer, "schedule": self.schedule}


def equal(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def test_the_default_is_torchs_fused_adamw_to_the_bit():
    training, other = Training(), Training()
    parameters = list(other.net.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    other.optimizer = torch.optim.AdamW(groups, lr=0.02, fused=True)
    other.schedule = make_schedule(other.optimizer, total_steps=12, warmup_fraction=0.25)
    before = {key: value.clone() for key, value in training.net.state_dict().items()}
    trained = training.train(0, 12)
    assert equal(trained, other.train(0, 12))
    assert not any(torch.equal(trained[key], before[key]) for key in before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_that_goes_on_is_the_one_never_interrupted(name, tmp_path):
    uninterrupted = Training(name, **OPTIMIZERS[name]).train(0, 12)
    training = Training(name, **OPTIMIZERS[name])
    training.train(0, 7)
    with TrainingStates(tmp_path, stage="exp1", fingerprint="f" * 64) as states:
        states.save({key: part.state_dict() for key, part in training.parts().items()})
        saved = states.load()
    resumed = Training(name, **OPTIMIZERS[name])
    for key, part in resumed.parts().items():
        part.load_state_dict(saved[key])
    assert equal(resumed.train(7, 12), uninterrupted)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_schedule_ends_every_optimizers_training(name):
    training = Training(name, **OPTIMIZERS[name])
    training.train(0, 12)
    before = {key: value.detach().clone() for key, value in training.net.named_parameters()}
    training.train(12, 13)
    assert equal(before, dict(training.net.named_parameters()))


def test_options_reach_the_optimizer():
    options = {"momentum": 0.5, "nesterov": False, "dampening": 0.1}
    for group in Training("sgd", **options).optimizer.param_groups:
        assert {key: group[key] for key in options} == options
        assert group["fused"] is True
    for group in Training("sgd", fused=False).optimizer.param_groups:
        assert (group["fused"], group["momentum"]) == (False, 0.9)  # timm's own momentum
    assert Training("adamw", foreach=True).optimizer.defaults["fused"] is None


def test_muon_leaves_vectors_depthwise_convolutions_and_heads_to_adamw():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.Linear(16, 10)
    )
    options = {"learning_rate": 0.01, "weight_decay": 0.3, "name": "nmuon"}
    optimizer = make_optimizer([net], **options, heads=list(net[3].parameters()))
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    muon = {
        name for name, parameter in net.named_parameters() if optimizer.state[parameter]["use_muon"]
    }
    assert muon == {"0.weight", "2.weight"}
    assert {group["ns_steps"] for group in optimizer.param_groups} == {3}
    decays = {
        name: group["weight_decay"]
        for group in optimizer.param_groups
        for name, parameter in net.named_parameters()
        if any(parameter is one for one in group["params"])
    }
    assert decays == {name: 0.3 * name.endswith("weight") for name in decays}
    assert len(decays) == 8
    own = make_optimizer([net], **options, options={"ns_steps": 5})
    assert {group["ns_steps"] for group in own.param_groups} == {5}


def test_muon_computes_in_float32():
    """The singular values of its update are near 1, and equal to those of float64 to float32."""
    matrix = nn.Parameter(torch.zeros(16, 24))
    generator = torch.Generator().manual_seed(0)
    matrix.grad = torch.randn(16, 24, generator=generator)
    exact = timm.optim.muon.zeropower_via_newtonschulz(
        matrix.grad.double(), 5, timm.optim.muon._COEFFICIENTS["quintic"], dtype=torch.float64
    )
    optimizer = make_optimizer(
        [nn.ParameterList([matrix])], learning_rate=1.0, weight_decay=0.0, name="muon",
        options={"ns_steps": 5, "adjust_lr_fn": "original", "momentum": 0.0},
    )  # fmt: skip
    optimizer.step()
    assert (matrix.detach().double() + exact).abs().max() < 1e-5  # in bf16 it is 1e-2
    assert torch.linalg.svdvals(matrix.detach()).sub(1).abs().max() < 0.3


def is_usable(name):
    try:
        check_optimizer(name, {}, key="optimizer")
    except OptimizerError:
        return False
    return True


@pytest.mark.filterwarnings("ignore:.*opt_einsum")
def test_all_of_timms_optimizers_are_usable_but_a_few():
    unusable = {name for name in list_optimizers() if not is_usable(name)}
    packaged = {n for n in list_optimizers() if isinstance(get_optimizer_info(n).opt_class, str)}
    assert unusable == {"adahessian", *packaged}


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS.items())
def test_the_check_takes_what_works_and_leaves_no_trace(name, options):
    generator = torch.get_rng_state()
    check_optimizer(name, options, key="optimizer")
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamv", "must be the name of a timm optimizer; did you mean adam, radam, nadam, adamw"),
        ("AdamW", "must be the name of a timm optimizer; did you mean adamw, "),
        ("x", "must be the name of a timm optimizer; timm.optim.list_optimizers() lists them"),
        ("my_sgd", "must be the name of a timm optimizer; "),
        ("adahessian", "must be an optimizer that needs no second derivatives"),
        ("fusedlamb", "must be an optimizer that needs no apex"),
        ("bnbadam8bit", "must be an optimizer that needs no bitsandbytes"),
    ],
)
def test_an_optimizer_that_cannot_be_used_is_refused(name, message):
    message = f"teacher_optimizer: got {name!r}; {message}"
    with pytest.raises(OptimizerError, match=f"^{re.escape(message)}"):
        check_optimizer(name, {}, key="teacher_optimizer")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sgd", {"momentun": 1}, ".momentun: got 1; sgd has no such option; did you mean momentum"),
        ("lion", {"lr": 0.1}, ".lr: got 0.1; lion has no such option; must be one of betas, "),
        ("sgd", {"layer_decay": 0.1}, ".layer_decay: got 0.1; sgd has no such option; must be one"),
        ("adamw", {"betas": 0.9}, ": got {'betas': 0.9}; adamw cannot take a step with it (TypeEr"),
        ("sgd", {"dampening": 0.1}, ": got {'dampening': 0.1}; sgd cannot take a step with it (Va"),
        ("muon", {"ns_steps": "x"}, ": got {'ns_steps': 'x'}; muon cannot take a step with it (Ty"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_in_one_line(name, options, message):
    with pytest.raises(OptimizerError, match=f"^optimizer_options{re.escape(message)}") as caught:
        check_optimizer(name, options, key="optimizer")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nmuon", "adamw", "sgdw", "lion", "lookahead_adamw", "mars"])
def test_the_recipes_decay_is_for_those_that_shrink_weights_by_it(name):
    check_optimizer(name, {}, key="optimizer", has_decay=False)


@pytest.mark.parametrize("name", ["adam", "sgd", "momentum", "nadam", "rmsprop", "lamb", "adopt"])
def test_others_want_a_number_for_the_decay(name):
    check_optimizer(name, {}, key="optimizer")
    message = (
        f"teacher_weight_decay: got null; must be a number for teacher_optimizer {name}; null is "
    )
    with pytest.raises(OptimizerError, match=f"^{message}for those that shrink weights"):
        check_optimizer(name, {}, key="teacher_optimizer", has_decay=False)


def test_kron_compiles_nothing_by_itself(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("compiled"))
    check_optimizer("kron", {}, key="optimizer")


def test_an_optimizer_that_needs_a_closure_is_refused(monkeypatch):
    """timm has none today; where a later one does, it cannot take the check's step."""

    class Closure(torch.optim.SGD):
        def step(self, closure):
            return closure()

    info = OptimInfo(name="closure", opt_class=Closure)
    monkeypatch.setitem(default_registry._optimizers, "closure", info)
    message = "optimizer: got 'closure'; closure cannot take a step with it (TypeError: "
    with pytest.raises(OptimizerError, match=f"^{re.escape(message)}.*closure"):
        check_optimizer("closure", {}, key="optimizer")


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


@pytest.mark.parametrize(
    ("name", "spared"),
    [
        ("resmlp_12_224", ("norm1.alpha", "norm1.beta", "ls1")),
        ("vit_tiny_patch16_224", ("pos_embed", "cls_token", "norm1.weight")),
        ("swinv2_tiny_window8_256", ("logit_scale", "norm1.weight")),
    ],
)
def test_scales_of_any_shape_and_what_a_model_names_are_not_decayed(name, spared):
    net = nn.ModuleList([timm.create_model(name)])
    groups = make_groups(net, weight_decay=0.3)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    found = {n for n, p in net.named_parameters() if id(p) in decayed}
    assert not [n for n in found if n.endswith(spared)]
    assert any(n.endswith("fc1.weight") for n in found)


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
