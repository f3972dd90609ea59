"""The folder a run works in, and what each of its files is called."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from distillation.base.methods import CONTROL

TEACHER = "teacher"
"""What the teacher's own training is called among those of the methods."""


def control_name(epochs: int) -> str:
    """Return what the control of another length is called in file names."""
    return f"{CONTROL}_{epochs}"


_OTHER_LENGTH = re.compile(rf"{CONTROL}_[1-9]\d*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where a stage finds its inputs and puts its outputs."""

    root: Path = Path()
    raw: Path = Path("data/raw")
    """Archives of data sets that were downloaded or put there by the user."""
    scratch: Path | None = Path(".scratch")
    """What is kept between a killed run and the next, and nothing else; None keeps nothing."""
    device_name: str = "auto"
    """What to run on. It is no parameter: the machine at hand is no part of an experiment."""
    num_processes: int | None = None
    """How many trainings run at once, nor is it one; None leaves it to `runs/processes.py`."""
    keeps_states: bool = False
    """Keep the states of trainings that are done. Where nothing like DVC remembers which stages
    have run, the next run then finds each training where it ended."""

    @property
    def checked(self) -> Path:
        """Always the same text, once models, weights and the data set's folders were checked."""
        return self.root / "data" / "checked.txt"

    @property
    def prepared(self) -> Path:
        """The prepared data set."""
        return self.root / "data" / "prepared"

    @property
    def targets(self) -> Path:
        """The teacher's stored outputs."""
        return self.root / "data" / "targets"

    @property
    def own_targets(self) -> Path:
        """The same, computed by a distillation in a clone that lacks them."""
        return (self.scratch or self.root / ".scratch") / "targets"

    @property
    def locks(self) -> Path:
        """What running stages hold, so that none runs twice at once."""
        return self.root / ".scratch" / "locks"

    @property
    def durations(self) -> Path:
        """How long each stage took when it last ran."""
        return (self.scratch or self.root / ".scratch") / "durations.json"

    @property
    def trackers(self) -> Path:
        """What trackers keep in files, of all runs: nothing that DVC knows or removes."""
        return (self.scratch.parent if self.scratch else self.root) / "trackers"

    @property
    def metrics(self) -> Path:
        """All that is measured."""
        return self.root / "metrics"

    @property
    def student(self) -> Path:
        """The exported student."""
        return self.root / "models" / "student"

    @property
    def teacher_weights(self) -> Path:
        """The teacher after its training."""
        return self.weights(TEACHER)

    def weights(self, method: str) -> Path:
        """The weights of a method's student, or of the teacher."""
        models = self.root / "models"
        folder = models if method == TEACHER else models / "students"
        return folder / f"{method}.safetensors"

    def predictions(self, method: str) -> Path:
        """The test predictions of a method's trainings, or of the teacher's."""
        return self.root / "data" / "predictions" / f"{method}.npz"

    def seeds(self, method: str) -> Path:
        """What each training of a method measured, epoch by epoch.

        The control of another length is no method: it lies apart from those that are compared.
        """
        folder = "costs/lengths" if _OTHER_LENGTH.fullmatch(method) else "seeds"
        return self.metrics / folder / f"{method}.json"

    def costs(self, name: str) -> Path:
        """What the trainings of a method cost, of the teacher, or its outputs (`targets`)."""
        return self.metrics / "costs" / f"{name}.json"

    def live(self, method: str) -> Path:
        """The learning curves of a method's trainings."""
        return self.metrics / "live" / method
