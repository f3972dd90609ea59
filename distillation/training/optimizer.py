"""The optimizer, by timm's name, and the learning-rate schedule of every training."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import timm.optim.kron
import timm.optim.muon
import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_class,
    get_optimizer_info,
    list_optimizers,
    param_groups_weight_decay,
)
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from distillation.base.errors import DistillationError

_LOOKAHEAD = "lookahead_"  # timm's prefix for its wrapper around another optimizer
_NOT_OPTIONS = ("params", "lr", "weight_decay")
_NOT_FUSED = {"foreach", "fused", "differentiable"}
_MUON_STEPS = 3
"""Newton-Schulz steps of Muon where its options do not say it. With timm's 5 they take a third to a
half longer (docs/tuning.md); which is better for accuracy was not compared."""

# timm's Muon has no option for it: it orthogonalises in bf16, 40 times slower on a CPU without it.
timm.optim.muon.zeropower_via_newtonschulz = functools.partial(
    timm.optim.muon.zeropower_via_newtonschulz, dtype=torch.float32
)
# timm's Kron has no option for it either: it would compile its steps whatever `compile` says.
timm.optim.kron.has_dynamo = False


class OptimizerError(DistillationError):
    """An optimizer's name or options cannot be used; the message says what is allowed."""


def make_optimizer(
    modules: Iterable[nn.Module],
    *,
    learning_rate: float,
    weight_decay: float,
    name: str = "adamw",
    options: Mapping[str, Any] | None = None,
    heads: Collection[Tensor] = (),
) -> torch.optim.Optimizer:
    """Make an optimizer over all trainable parameters of some modules.

    It is a fused one where torch has that: faster, and `NonFiniteGuard` need not wait for it. Muon
    (Jordan et al., 2024) is for the matrices of hidden layers: timm leaves vectors and depthwise
    convolutions to AdamW at the same rate, and here the heads, too.

    Args:
        modules: what to train.
        learning_rate: peak learning rate.
        weight_decay: of the parameters that `make_groups` says.
        name: timm's name of the optimizer.
        options: its own keyword arguments; `check_optimizer` says which there are.
        heads: parameters behind the last features, which Muon leaves to AdamW: they see one
            position an image, so that orthogonalising them would take longer than the layer.
    """
    options = dict(options or {})
    if "fused" in _option_names(name) and not _NOT_FUSED & options.keys():
        options["fused"] = True
    groups = make_groups(nn.ModuleList(modules), weight_decay=weight_decay)
    if is_muon(name):
        options.setdefault("ns_steps", _MUON_STEPS)
        groups = _set_apart(groups, heads)
    return create_optimizer_v2(groups, name, lr=learning_rate, **options)


def is_muon(name: str) -> bool:
    """Return whether an optimizer is one of timm's forms of Muon."""
    optimizer = get_optimizer_class(name.removeprefix(_LOOKAHEAD), bind_defaults=False)
    return optimizer is timm.optim.muon.Muon


def _set_apart(groups: list[dict[str, Any]], heads: Collection[Tensor]) -> list[dict[str, Any]]:
    """Put the heads into groups of their own that Muon leaves to AdamW."""
    apart = {id(parameter) for parameter in heads}
    parts = [
        {
            **group,
            "params": [one for one in group["params"] if (id(one) in apart) == is_head],
            "use_fallback": is_head,
        }
        for group in groups
        for is_head in (False, True)
    ]
    return [part for part in parts if part["params"]]


def make_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Group the trainable parameters of a module by how they are trained.

    Biases and vectors, such as the scales of normalisation layers, are not decayed, whatever axes
    of length 1 they have; nor is what a model says should not be (timm's `no_weight_decay`), such
    as position embeddings.
    """
    spared = [
        f"{prefix}.{name}" if prefix else name
        for prefix, layer in module.named_modules()
        if hasattr(layer, "no_weight_decay")
        for name in layer.no_weight_decay()
    ]
    spared += [name for name, p in module.named_parameters() if sum(n > 1 for n in p.shape) < 2]
    return param_groups_weight_decay(module, weight_decay, no_weight_decay_list=spared)


def check_optimizer(
    name: str, options: Mapping[str, Any], *, key: str, has_decay: bool = True
) -> None:
    """Check that an optimizer can be made and takes a step, and that its decay is known.

    Args:
        name: timm's name of the optimizer.
        options: its own keyword arguments.
        key: the parameter the name was given as; the options were given as `<key>_options`.
        has_decay: whether a weight decay was given; where it was not, the recipe's is for
            optimizers that shrink weights by it. It takes 20 steps to tell: once, before all
            trainings, is enough.

    Raises:
        OptimizerError: timm has no such optimizer, it needs what a training does not give it, it
            does not take an option or its value, or the recipe has no decay for it.
    """
    base = name.removeprefix(_LOOKAHEAD)
    names = [str(one) for one in list_optimizers()]
    if base not in names:
        hint = _near(base.lower(), names) or "timm.optim.list_optimizers() lists them"
        raise OptimizerError(f"{key}: got {name!r}; must be the name of a timm optimizer; {hint}")
    info = get_optimizer_info(base)
    if info.second_order:
        raise OptimizerError(
            f"{key}: got {name!r}; must be an optimizer that needs no second derivatives"
        )
    if isinstance(info.opt_class, str):
        package = info.opt_class.partition(".")[0]
        raise OptimizerError(f"{key}: got {name!r}; must be an optimizer that needs no {package}")
    known = _option_names(name)
    for option, value in options.items():
        if option not in known:
            hint = _near(option, known) or f"must be one of {', '.join(known)}"
            raise OptimizerError(
                f"{key}_options.{option}: got {value!r}; {name} has no such option; {hint}"
            )
    try:
        _take_step(name, options)
    except Exception as error:  # every optimizer has its own ways to refuse a value
        got = f"{key}_options: got {dict(options)}" if options else f"{key}: got {name!r}"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OptimizerError(f"{got}; {name} cannot take a step with it ({reason})") from error
    if not has_decay and not _shrinks_weights(name, options):
        raise OptimizerError(
            f"{key.replace('optimizer', 'weight_decay')}: got null; must be a number for {key} "
            f"{name}; null is for those that shrink weights by rate · decay in every step, such "
            "as nmuon, adamw and sgdw"
        )


def _option_names(name: str) -> list[str]:
    parameters = inspect.signature(
        get_optimizer_class(name.removeprefix(_LOOKAHEAD), bind_defaults=False)
    ).parameters
    return sorted(option for option in parameters if option not in _NOT_OPTIONS)


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=5)
    return f"did you mean {', '.join(near)}?" if near else ""


def _take_step(name: str, options: Mapping[str, Any]) -> None:
    """Let an optimizer take a step on the CPU; some look at their options only then."""
    _step_on_ones(name, options, learning_rate=0.1, weight_decay=0.1, gradient=1.0, num_steps=1)


def _shrinks_weights(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether weights without a gradient shrink by rate · decay in every step.

    Optimizers that add the decay to the gradient normalise it, or gather momentum from it.
    """
    rate, decay, num_steps = 0.01, 0.1, 20
    ones = _step_on_ones(
        name.removeprefix(_LOOKAHEAD),  # follows the other's weights
        options,
        learning_rate=rate,
        weight_decay=decay,
        gradient=0.0,
        num_steps=num_steps,
    )
    expected = torch.full_like(ones, (1 - rate * decay) ** num_steps)
    return torch.allclose(ones, expected, rtol=1e-4)


def _step_on_ones(
    name: str,
    options: Mapping[str, Any],
    *,
    learning_rate: float,
    weight_decay: float,
    gradient: float,
    num_steps: int,
) -> Tensor:
    """Return a convolution's weights, ones at first, after steps with the same gradient."""
    parameters = nn.ParameterList([torch.ones(4, 4, 2, 2), torch.ones(4)])
    optimizer = make_optimizer(
        [parameters],
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        name=name,
        options=options,
    )
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, gradient)
    with torch.random.fork_rng(devices=[]):
        for _ in range(num_steps):
            optimizer.step()
    return parameters[0].detach()


def make_schedule(
    optimizer: torch.optim.Optimizer, *, total_steps: int, warmup_fraction: float
) -> LambdaLR:
    """Make a schedule that is stepped once after every optimizer step."""
    return LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(
            step, total_steps=total_steps, warmup_fraction=warmup_fraction
        ),
    )


def learning_rate_factor(step: int, *, total_steps: int, warmup_fraction: float) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then half a cosine.

    Args:
        step: 0-based index of the step about to be taken.
        total_steps: steps of the whole training.
        warmup_fraction: share of the steps in which the rate rises; 0 starts at the peak.

    Returns:
        A factor in (0, 1] for every step of the training, 0 behind its end.
    """
    warmup_steps = round(warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if step >= total_steps:
        return 0.0
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * progress))
