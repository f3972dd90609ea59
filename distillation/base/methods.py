"""The methods by name, one row of every table each; imports no torch.

A method is the control (labels alone) or any file in `losses/`: the file's name is the method's,
and its stage's. Those called `exp` and a number are the experiments, which run by default as the
control does. A further method has a weight under `method_weights` in `params.yaml`, and runs when
the list `methods` there names it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from distillation.base.errors import DistillationError

_NO_METHODS = ("__init__", "logits")


class MethodError(DistillationError):
    """There is no distillation method of this name."""


def _losses() -> set[str]:
    files = {path.stem for path in (Path(__file__).parents[1] / "losses").glob("*.py")}
    return files - set(_NO_METHODS)


def _find_experiments() -> tuple[str, ...]:
    numbers = (re.fullmatch(r"exp([1-9]\d*)", name) for name in _losses())
    return tuple(f"exp{number}" for number in sorted(int(found[1]) for found in numbers if found))


CONTROL = "control"
EXPERIMENTS = _find_experiments()
DEFAULT_METHODS = (CONTROL, *EXPERIMENTS)
"""What runs by default, in the order of every table."""


def further_methods() -> tuple[str, ...]:
    """Return the names of the methods beside the experiments: the other files in `losses/`."""
    return tuple(sorted(_losses() - set(EXPERIMENTS)))


def module_name(method: str) -> str:
    """Return the module of a method's loss.

    Raises:
        MethodError: there is no such method.
    """
    return f"distillation.losses.{check_method(method)}"


def check_method(name: str) -> str:
    """Return the name if a student can be distilled by it, else raise `MethodError`."""
    known = (*EXPERIMENTS, *further_methods())
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(known)}"
        raise MethodError(f"method: got {name!r}; {hint}")
    return name


def sort_methods(names: Iterable[str]) -> list[str]:
    """Sort methods as every table does: control, experiments, further methods, whatever else."""
    order = [*DEFAULT_METHODS, *further_methods()]
    given = list(names)
    return [name for name in order if name in given] + [n for n in given if n not in order]
