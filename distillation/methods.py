"""The arms of a comparison by name, and the file of each one's loss; imports no torch.

The three experiments run by default. Every other file in `losses/` is a further method of the same
name as its file: it has a weight under `method_weights` in `params.yaml`, and runs when the list
`methods` there names it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from distillation.errors import DistillationError

CONTROL = "control"
EXPERIMENTS = ("exp1", "exp2", "exp3")
ARMS = (CONTROL, *EXPERIMENTS)
"""What runs by default."""

_EXPERIMENT_FILES = {"exp1": "logits", "exp2": "cosine", "exp3": "regressor"}


class MethodError(DistillationError):
    """There is no distillation method of this name."""


def find_methods() -> tuple[str, ...]:
    """Give the names of the further methods: the files in `losses/` that are no experiment's."""
    files = {path.stem for path in (Path(__file__).parent / "losses").glob("*.py")}
    return tuple(sorted(files - {"__init__", *_EXPERIMENT_FILES.values()}))


def module_name(method: str) -> str:
    """Give the module of an experiment's or a method's loss.

    Raises:
        MethodError: there is no such method.
    """
    return f"distillation.losses.{_EXPERIMENT_FILES.get(check_method(method), method)}"


def check_method(name: str) -> str:
    """Give the name back if a student can be distilled by it, else raise `MethodError`."""
    known = (*EXPERIMENTS, *find_methods())
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(known)}"
        raise MethodError(f"method: got {name!r}; {hint}")
    return name


def sort_arms(names: Iterable[str]) -> list[str]:
    """Put arms in the order of every table: control, experiments, methods, whatever else."""
    order = [*ARMS, *find_methods()]
    given = list(names)
    return [name for name in order if name in given] + [n for n in given if n not in order]
