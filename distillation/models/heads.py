"""The classifier's rows: put in the data set's order, or left out where a new head is trained.

Shapes: K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import torch
from torch import Tensor, nn

from distillation.base.regular_files import open_regular
from distillation.models.matching import Wanted
from distillation.models.names import ModelError

_SHOWN_NAMES = 5


def head_keys(net: nn.Module) -> tuple[str, ...]:
    """Return the keys of a network's state that belong to its classifiers."""
    named = net.pretrained_cfg.get("classifier")  # type: ignore[union-attr,operator]
    paths = (named,) if isinstance(named, str) else tuple(named or ())
    return tuple(key for key in net.state_dict() if key.startswith(tuple(f"{p}." for p in paths)))


def fit_head(
    state: dict[str, Tensor],
    net: nn.Module,
    wanted: Wanted,
    *,
    name: str,
    class_names: Sequence[str] | None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Bring the head in a state to the data set's classes.

    Args:
        state: of a checkpoint; it stays as it is.
        net: the network to load it into, with a new head for the data set's K classes.
        wanted: what parameters and data ask for.
        name: the checkpoint's, for messages.
        class_names: the checkpoint's, in the order of its rows; None where it does not say.

    Returns:
        The state, with its rows in the data set's order or with the new head of `net`, and
        sentences for the log.

    Raises:
        ModelError: the head is for other classes, and no training is ahead.
    """
    where, own, keys = f"{wanted.key}_checkpoint {name}", net.state_dict(), head_keys(net)
    reason = _why_head_differs(state, own, keys, wanted, class_names)
    if reason is not None:
        if not wanted.will_train:
            raise ModelError(
                f"{where}: {reason}; allowed: a checkpoint trained on the data set's classes, or "
                f"{wanted.key}_epochs above 0, which trains a new head"
            )
        kept = {key: value for key, value in state.items() if key not in keys}
        return kept | {key: own[key] for key in keys}, [
            f"{where}: {reason}; the body is taken, the head is new"
        ]
    if class_names is None or wanted.class_names is None:
        return state, []
    if tuple(class_names) == wanted.class_names:
        return state, []
    positions = {class_name: row for row, class_name in enumerate(class_names)}
    rows = torch.tensor([positions[class_name] for class_name in wanted.class_names])
    ordered = {key: state[key][rows] for key in keys}
    return state | ordered, [
        f"{where}: its classes come in another order; the head's rows are put into the data set's"
    ]


def _why_head_differs(
    state: dict[str, Tensor],
    own: dict[str, Tensor],
    keys: Sequence[str],
    wanted: Wanted,
    class_names: Sequence[str] | None,
) -> str | None:
    """Say why a head cannot be the data set's; None where it may be."""
    present = [key for key in keys if key in state]
    if keys and not present:
        return f"has no classifier ({keys[0]} is missing)"
    for key in present:
        new, old = own[key].shape, state[key].shape
        if len(new) == len(old) and new[1:] == old[1:] and new[0] != old[0]:
            return f"{key} is for {old[0]} classes, the data set has {new[0]}"
    if class_names is None or wanted.class_names is None:
        return None
    if len(set(class_names)) < len(class_names):
        return "names one of its classes twice"
    others = sorted(set(class_names) ^ set(wanted.class_names))
    if others:
        return f"its classes are not the data set's (only one of them has {_shorten(others)})"
    return None


def read_class_names(path: Path, *, key: str) -> tuple[str, ...]:
    """Read class names, one per line, in the order of a classifier's outputs.

    Raises:
        ModelError: the file cannot be read, holds fewer than two names, or one of them twice.
    """
    try:
        with open_regular(path.expanduser()) as file:
            lines = file.read().decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise ModelError(
            f"{key}: {path} cannot be read ({reason}); allowed: a text file, one class name per "
            "line"
        ) from error
    names = tuple(normalize("NFC", line.strip()) for line in lines if line.strip())
    repeated = sorted(name for name, number in Counter(names).items() if number > 1)
    if len(names) < 2 or repeated:
        problem = f"holds {_shorten(repeated)} twice" if repeated else f"holds {len(names)} name(s)"
        raise ModelError(
            f"{key}: {path} {problem}; allowed: different class names, one per line, in the order "
            "of the classifier's outputs"
        )
    return names


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    return f"{shown} and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else shown
