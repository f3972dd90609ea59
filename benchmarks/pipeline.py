"""The section `pipeline`: what DVC and the stages cost beside the training.

A clone of the repository with no epochs: what is left of a stage's time is starting Python,
importing, loading, measuring on the test split, hashing and DVC itself. Then the same `dvc repro`
with nothing to do, and `make demo` as a user runs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.hardware import ROOT
from benchmarks.settings import Settings

NOTES = (
    "Handwritten digits at 16×16 as in `make demo`, teacher_epochs and epochs 0.",
    "`make demo` runs the whole pipeline, trainings included, in an environment already built.",
)
_DIGITS = {
    "dataset": "digits",
    "image_size": 16,
    "crop_padding": 1,
    "horizontal_flip": False,
    "teacher_epochs": 0,
    "epochs": 0,
}


def measure_pipeline(settings: Settings) -> dict[str, Any]:
    """Measure every stage without epochs, a repro with nothing to do, and the demo."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        clone = Path(temporary) / "clone"
        _run(["git", "clone", "-q", str(ROOT), str(clone)], cwd=ROOT)
        params = clone / "params.yaml"
        values = {**yaml.safe_load(params.read_text(encoding="utf-8")), **_DIGITS}
        params.write_text(yaml.safe_dump(values), encoding="utf-8")
        names = list(yaml.safe_load((clone / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
        stages = {
            name: round(_run(["dvc", "repro", "--single-item", "--force", name], cwd=clone), 2)
            for name in names
        }
        nothing = [_run(["dvc", "repro"], cwd=clone) for _ in range(settings.rounds)]
        result: dict[str, Any] = {
            "notes": list(NOTES),
            "seconds_of_stages_without_epochs": stages,
            "seconds_of_repro_with_nothing_to_do": round(min(nothing), 2),
        }
        if not settings.quick:
            (clone / ".venv").symlink_to(ROOT / ".venv")
            # The clone's requirements.txt is newer than the environment, but not another.
            demo = ["make", "--old-file", ".venv/.installed", "demo"]
            _run(["git", "checkout", "-q", "."], cwd=clone)
            result["seconds_of_make_demo"] = round(_run(demo, cwd=clone), 1)
    return result


def _run(command: list[str], *, cwd: Path) -> float:
    """Run a command and give the seconds it took; raises when it fails."""
    print(" ".join(command[:5]), file=sys.stderr, flush=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start
