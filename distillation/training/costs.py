"""What a training cost, in time of cores or GPUs: written apart, since it differs from run to run.

`Runtime.compute_seconds` counts it; `results/costs.py` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distillation.base.checksums import seal
from distillation.base.files import write_json


def write_cost(path: Path, seconds: Sequence[float], *, unit: str) -> Path:
    """Write what each of some trainings cost; returns the path.

    Args:
        path: where to.
        seconds: of each training.
        unit: what they are the time of: `core` or `GPU`.
    """
    write_json(path, seal({"unit": unit, "seconds": [round(value, 3) for value in seconds]}))
    return path
