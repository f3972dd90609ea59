"""A grid of parameters as `dvc exp run --queue` reads it, turned into variants with names.

DVC's own functions parse it. A name follows from the parameters alone, so the same variant has the
same name the next time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence

from dvc.exceptions import DvcException
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import get_hydra_sweeps

from distillation.cluster.errors import SweepError

MAX_NAME = 100
"""Characters: the name is part of a file's name."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One cell of the grid."""

    name: str
    """The name of its experiment."""
    overrides: tuple[str, ...]
    """What `dvc exp run` gets, each after an -S of its own."""


def make_variants(grid: Sequence[str]) -> list[Variant]:
    """Return all combinations of a grid, in its order.

    Args:
        grid: what stands behind each -S: `alpha=0.3,0.5`, `seeds=[0,1]`, `other.yaml:key=1,2`.

    Raises:
        SweepError: DVC cannot read it.
    """
    from hydra.errors import HydraException

    try:
        cells = get_hydra_sweeps(to_path_overrides(grid))
    except (DvcException, HydraException) as error:
        first_line, *_ = str(error).splitlines()
        raise SweepError(
            f"-S {' -S '.join(grid)}: {first_line}; must be NAME=VALUE or NAME=VALUE,VALUE, as "
            "for dvc exp run --queue"
        ) from error
    variants = []
    for cell in cells:
        overrides = [
            override if path == "params.yaml" else f"{path}:{override}"
            for path, values in cell.items()
            for override in values
        ]
        variants.append(Variant(_name(overrides), tuple(overrides)))
    return list(dict.fromkeys(variants))


def _name(overrides: list[str]) -> str:
    """Return a name that git takes; what it would not take is left out, and a checksum tells."""
    # By key alone: of two values for one key the last counts.
    text = ",".join(sorted(overrides, key=lambda override: override.partition("=")[0]))
    name = re.sub(r"[^A-Za-z0-9_+=,.-]+|\.(?=\.|$|lock$)|^[.-]+", "-", text)
    if name == text and len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - len(digest) - 1].strip('-')}-{digest}"
