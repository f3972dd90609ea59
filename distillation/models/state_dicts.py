"""The one state dict in what a file of weights holds, cleaned of what its training left there.

Training programs nest the weights under a key, prefix their names and store averages, optimizers
and counters beside them. What can only be told with the model at hand (other prefixes, another
image size) is left to `adapting`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from timm.models import clean_state_dict
from torch import Tensor

from distillation.models.names import ModelError
from distillation.models.unpickling import SAVE_STATE_DICT, class_of_stand_in
from distillation.models.weight_files import ALLOWED

PLAIN_KEYS = ("state_dict", "model", "model_state_dict", "model_state", "module", "net", "network",
              "weights", "params")  # fmt: skip
"""Under which programs keep the weights; the first two are timm's, in its order."""
NOT_A_MODEL = ("optim", "sched", "scaler", "criterion", "loss", "callback", "loop", "metric", "rng",
               "amp", "args", "config", "hyper_parameters", "hparams")  # fmt: skip
"""Keys that begin so, or have it after a `_`, hold something else."""
MOST_DEPTH = 4
"""Mappings in mappings around the weights; each may be looked at three times."""
PREFIXES = ("module.", "model.", "net.")
"""Of no timm model's own, so that they are taken away where every name has them."""
LEFTOVERS = ("total_ops", "total_params", "n_averaged")
"""Counters of profilers (thop) and of `torch.optim.swa_utils.AveragedModel`."""
ROLES = {"generator", "discriminator", "netg", "netd", "teacher", "student", "model", "ema",
         "model_ema", "ema_model", "encoder_q", "encoder_k"}  # fmt: skip
"""First components of names that stand for one model each where there are several."""


def is_average(key: str) -> bool:
    """Return whether a key speaks of averaged weights, as `state_dict_ema` does."""
    parts = re.split(r"[^a-z]+", key.lower())
    return "ema" in parts or "swa" in parts or any(part.startswith("averag") for part in parts)


def find_state(content: Any, *, got: str, depth: int = 0) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the state dict in the content of a file, with remarks of what was chosen.

    Args:
        content: what the file holds.
        got: begins every message.
        depth: how many mappings the content lies in.

    Raises:
        ModelError: there is none, or several of which none is clearly meant.
    """
    if (name := class_of_stand_in(content)) is not None:
        raise ModelError(f"{got}, which holds a whole pickled model ({name}); {SAVE_STATE_DICT}")
    if not isinstance(content, Mapping):
        kind = type(content).__name__.lower()
        raise ModelError(f"{got}, which holds one {kind} and no state dict; {ALLOWED}")
    keys = ", ".join(sorted(map(str, content))[:5]) or "nothing"
    if depth > MOST_DEPTH:
        raise ModelError(f"{got}, which holds mappings in mappings ({keys}); {ALLOWED}")
    if "param_groups" in content:
        raise ModelError(f"{got}, which holds an optimizer and no weights ({keys}); {ALLOWED}")
    inner = {k: v for k, v in content.items() if isinstance(k, str) and _may_hold_model(k, v)}
    if inner:
        state, remarks = _choose(inner, got=got, depth=depth + 1)
        for key, value in content.items():
            is_nameless = isinstance(value, (Mapping, list)) and key not in inner
            if is_nameless and value and isinstance(key, str) and is_average(key):
                remarks += (f"the averaged weights ({key}) have no names and are left out",)
        return state, remarks
    if any(isinstance(value, Tensor) for value in content.values()):
        if not all(isinstance(key, str) for key in content):
            raise ModelError(f"{got}, whose tensors have no names; {SAVE_STATE_DICT}")
        return _without_plain_values(content)
    for key, value in content.items():
        name = class_of_stand_in(value)
        if name is not None and (key in PLAIN_KEYS or is_average(str(key))):
            raise ModelError(
                f"{got}, which holds a whole pickled model ({name}); {SAVE_STATE_DICT}"
            )
    if any("optim" in str(key) for key in content):
        raise ModelError(f"{got}, which holds an optimizer and no weights ({keys}); {ALLOWED}")
    raise ModelError(f"{got}, which holds no tensors under its names ({keys}); {ALLOWED}")


def clean_names(state: dict[str, Any], *, got: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take away what wrappers put before every name, and what profilers left.

    Raises:
        ModelError: the names are those of several models.
    """
    remarks = []
    kept = {k: v for k, v in state.items() if k.rpartition(".")[2] not in LEFTOVERS}
    if len(kept) < len(state):
        dropped = next(k for k in state if k not in kept)
        remarks.append(f"{len(state) - len(kept)} counters are left out ({dropped}, …)")
    # Of torch.compile and of sharding, also inside of names.
    wrappers = r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
    names = {k: re.sub(wrappers, r"\1", k) for k in kept}
    while names:
        names = {k: next(iter(clean_state_dict({n: None}))) for k, n in names.items()}
        prefix = next((p for p in PREFIXES if all(n.startswith(p) for n in names.values())), None)
        if prefix is None:
            break
        names = {k: n.removeprefix(prefix) for k, n in names.items()}
    if len(set(names.values())) < len(kept):
        raise ModelError(f"{got}, in which two tensors have one name; {SAVE_STATE_DICT}")
    cleaned = {names[k]: v for k, v in kept.items()}
    removed = sorted({k[: len(k) - len(n)] for k, n in names.items() if k.endswith(n) and k != n})
    if removed:
        remarks.append(f"the prefix {removed[0]} is taken away from the names")
    chosen, more = _choose_role(cleaned, got=got)
    return chosen, (*remarks, *more)


def _choose(
    inner: dict[str, Any], *, got: str, depth: int
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Choose between the mappings of a file: the averaged weights, or the one known key."""
    plain = [key for key in PLAIN_KEYS if key in inner]
    averages, partial = _split_averages(inner, plain, got=got, depth=depth)
    order = averages or plain or list(inner)
    if "state_dict" in plain and not averages:
        order = ["state_dict"]  # as timm does
    if len(order) > 1:
        raise ModelError(
            f"{got}, which holds several models ({', '.join(order[:4])}); allowed: a file with one"
        )
    key = order[0]
    state, remarks = find_state(inner[key], got=got, depth=depth)
    others = [other for other in inner if other != key]
    if is_average(key):
        remarks = (f"the averaged weights ({key}) are taken", *remarks)
    elif partial:
        remarks = (f"{key} is taken; the averaged weights ({partial[0]}) lack some of it", *remarks)
    elif others:
        remarks = (f"{key} is taken, not {', '.join(others[:4])}", *remarks)
    elif key not in PLAIN_KEYS:
        remarks = (f"what stands under {key} is taken", *remarks)
    return state, remarks


def _split_averages(
    inner: Mapping[str, Any], plain: Sequence[str], *, got: str, depth: int
) -> tuple[list[str], list[str]]:
    """Return the keys of averages that are whole, and of those that lack tensors of plain weights.

    An average of the parameters alone lacks the statistics of normalisation layers, and what is
    called an average may be a meter of the loss.
    """
    averages = [key for key in inner if is_average(key)]
    if not averages or not plain:
        return averages, []
    wanted = _float_names(inner[plain[0]], got=got, depth=depth)
    names = {key: _float_names(inner[key], got=got, depth=depth) for key in averages}
    whole = [key for key in averages if wanted <= names[key]]
    return whole, [key for key in averages if key not in whole]


def _float_names(content: Any, *, got: str, depth: int) -> set[str]:
    try:
        state, _ = find_state(content, got=got, depth=depth)
        cleaned, _ = clean_names(state, got=got)
    except ModelError:
        return set()
    return {name for name, value in cleaned.items() if value.is_floating_point()}


def _may_hold_model(key: str, value: Any, depth: int = 3) -> bool:
    """Return whether a mapping under this key can be the weights of a model, or hold them."""
    if not isinstance(value, Mapping) or class_of_stand_in(value) is not None or depth == 0:
        return False
    lower = key.lower()
    if any(lower.startswith(part) or f"_{part}" in lower for part in NOT_A_MODEL):
        return False
    if "param_groups" in value:
        return False
    if any(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        return True
    return any(isinstance(k, str) and _may_hold_model(k, v, depth - 1) for k, v in value.items())


def _without_plain_values(content: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    others = [key for key, value in content.items() if not isinstance(value, Tensor)]
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not others:
        return state, ()
    return state, (f"entries that are no tensors are left out ({', '.join(others[:3])})",)


def _choose_role(state: dict[str, Any], *, got: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Choose between models that are told apart by the first component of their names alone."""
    groups: dict[str, set[str]] = {}
    for key in state:
        first, _, rest = key.partition(".")
        groups.setdefault(first, set()).add(rest)
    roles = [name for name in groups if name.lower() in ROLES and len(groups[name]) > 1]
    averages = [name for name in roles if is_average(name)]
    if len(averages) == 1 and len(roles) > 1:
        prefix = averages[0] + "."
        chosen = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        return clean_names(chosen, got=got)[0], (f"the averaged weights ({prefix}*) are taken",)
    same = len(groups) == 2 and len({frozenset(names) for names in groups.values()}) == 1
    if len(roles) > 1 or (same and all(len(names) > 1 for names in groups.values())):
        several = ", ".join(roles or groups)
        raise ModelError(f"{got}, which holds several models ({several}); allowed: a file with one")
    return state, ()
