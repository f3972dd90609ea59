"""Bring a checkpoint's tensors to the names and the image size of a model at hand.

timm does both when it loads published weights: each of its families has a function that renames
the tensors of other projects and resamples position embeddings and tables of relative positions.
Whether the outcome fits is left to the caller, who compares every tensor.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import timm
from torch import Tensor, nn

from distillation.base.limits import is_out_of_memory

State = dict[str, Tensor]


class _FoundError(Exception):
    """Carries the function out of timm."""


def adapt_state(state: State, net: nn.Module) -> tuple[State, tuple[str, ...]]:
    """Return the tensors as a model can load them, with a remark for each kind of change.

    Tried are the names as they are, without a prefix that most of the model's names have, and
    what timm's own conversion makes of both. Returned is the first in which the most tensors fit
    and the fewest are too many, so a checkpoint that fits already, or one that cannot be made to
    fit, is left as it is.

    Args:
        state: the tensors of a checkpoint.
        net: the timm model, whose weights stay as they are.
    """
    own = {key: value.shape for key, value in net.state_dict().items()}
    candidates: list[tuple[State, tuple[str, ...]]] = [(state, ())]
    if _fit(state, own) < (len(own), 0):
        if unprefixed := _without_prefix(state, own):
            candidates.append(unprefixed)
        convert = find_conversion(net)
        if convert is not None:
            candidates += [_convert(convert, *candidate, net=net) for candidate in candidates]
    return max(candidates, key=lambda candidate: _fit(candidate[0], own))


def find_conversion(net: nn.Module) -> Callable[..., State] | None:
    """Return the function by which timm converts published weights for a model, or None.

    timm hands it over in the call that builds the model, at times with options bound to it, and
    keeps it nowhere. So the model's constructor is run up to that call and no further.
    """
    architecture = str(net.pretrained_cfg.get("architecture", ""))  # type: ignore[union-attr,operator]
    if not timm.is_model(architecture):
        return None

    def stop(*_: Any, pretrained_filter_fn: Callable[..., State] | None = None, **__: Any) -> None:
        raise _FoundError(pretrained_filter_fn)

    with contextlib.ExitStack() as patches:
        for name, module in list(sys.modules.items()):
            if name.startswith("timm.models.") and hasattr(module, "build_model_with_cfg"):
                patches.enter_context(mock.patch.object(module, "build_model_with_cfg", stop))
        try:
            timm.model_entrypoint(architecture)(pretrained=False)
        except _FoundError as found:
            return found.args[0]
    return None


def _convert(
    convert: Callable[..., State], state: State, remarks: tuple[str, ...], *, net: nn.Module
) -> tuple[State, tuple[str, ...]]:
    """Apply timm's conversion; what it cannot convert is returned as it was."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        takes_model = len(inspect.signature(convert).parameters) > 1
        converted = convert(dict(state), net) if takes_model else convert(dict(state))
    # It was written for checkpoints of known origin, and stumbles over others in any way.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return state, remarks
    finally:
        logger.setLevel(level)
    converted = {key: value for key, value in converted.items() if isinstance(value, Tensor)}
    resampled = [
        f"{key} is resampled from {tuple(state[key].shape)} to {tuple(value.shape)}"
        for key, value in converted.items()
        if key in state and state[key].shape != value.shape
    ]
    shown = resampled[:2]
    if len(resampled) > 2:
        shown.append(f"{len(resampled) - 2} more tensors are resampled")
    added, gone = converted.keys() - state.keys(), state.keys() - converted.keys()
    if added:
        shown.append(f"{len(added)} tensors are renamed as timm does it for other projects' files")
    elif gone:
        shown.append(f"{len(gone)} tensors are left out as timm does it ({min(gone)}, …)")
    return converted, (*remarks, *shown)


def _without_prefix(state: State, own: dict[str, Any]) -> tuple[State, tuple[str, ...]] | None:
    """Take away the prefix under which most of the model's tensors are found, if there is one."""
    prefixes: dict[str, int] = {}
    for key, value in state.items():
        parts = key.split(".")
        for depth in range(1, len(parts)):
            if own.get(".".join(parts[depth:])) == value.shape:
                prefix = ".".join(parts[:depth]) + "."
                prefixes[prefix] = prefixes.get(prefix, 0) + 1
    most = max(prefixes.values(), default=0)
    best = [prefix for prefix, count in prefixes.items() if count == most]
    # Two that fit as well are two models, and none is clearly meant.
    if len(best) != 1 or most < len(own) / 2:
        return None
    prefix = best[0]
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    beside = {k: v for k, v in state.items() if not k.startswith(prefix)}
    # A classifier is often kept beside the body.
    heads = {k: v for k, v in beside.items() if k in own and k not in inside}
    remarks = [f"the prefix {prefix} is taken away from the names"]
    dropped = [k for k in beside if k not in heads]
    if dropped:
        remarks.append(f"{len(dropped)} tensors beside {prefix}* are left out ({dropped[0]}, …)")
    return {**inside, **heads}, tuple(remarks)


def _fit(state: State, own: dict[str, Any]) -> tuple[int, int]:
    """Return how well tensors fit, for comparison: how many do, then how few are too many."""
    fitting = sum(key in state and state[key].shape == shape for key, shape in own.items())
    return fitting, -len(state.keys() - own.keys())
