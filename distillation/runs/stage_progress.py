"""How far the trainings of a stage are: one display for all of them, and how to go on with each."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from distillation.base.progress import Progress


class Listener(Protocol):
    """Hears how far one training is."""

    def begin(self, num_steps: int, num_epochs: int, epochs_done: int) -> None:
        """A training begins, or goes on after so many epochs of a run that was killed."""
        ...

    def advance(self, number: int = 1) -> None:
        """So many steps were done."""
        ...

    def end_epoch(self, epoch: int) -> None:
        """An epoch ended, 1-based; its record is about to be logged."""
        ...

    def end(self) -> None:
        """The training ended; patience may have saved some of its epochs."""
        ...


class StageProgress:
    """Shows how far all trainings of a stage are; what each reports goes through `listen`."""

    def __init__(self, method: str, num_seeds: int) -> None:
        self._method, self._num_seeds = method, num_seeds
        self._progress: Progress | None = None
        self._begun: list[_SeedProgress] = []

    def listen(self, name: str, seed: int) -> Listener:
        """Return what a training is to report to."""
        return _SeedProgress(self, name, seed)

    def pause(self) -> None:
        """Take the bar off the terminal until the next step."""
        if self._progress is not None:
            self._progress.pause()

    def describe_rest(self) -> str:
        """Say how to go on with what has begun and not ended; empty where nothing has."""
        rest = [one.describe_rest() for one in self._begun if not one.has_ended]
        return f"the same command goes on with {', '.join(rest)}" if rest else ""

    def begin(self, one: _SeedProgress) -> Progress:
        """Count a training in; gives what counts its steps."""
        self._begun.append(one)
        if self._progress is None:
            self._progress = Progress(self._num_seeds * one.num_steps, unit="step")
        return self._progress

    def describe(self) -> None:
        """Show which training is in which epoch."""
        running = [one for one in self._begun if not one.has_ended]
        if not running or self._progress is None:
            return
        first, epochs = running[0], [str(one.epoch) for one in running]
        name, where = first.name, f"epoch {epochs[0]}/{first.num_epochs}"
        if len(running) > 1:
            name = f"{self._method} seeds {', '.join(str(one.seed) for one in running)}"
        if len(set(epochs)) > 1:
            where = f"epochs {', '.join(epochs)} of {first.num_epochs}"
        self._progress.describe(f"{name} {where}")

    def __enter__(self) -> StageProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.__exit__(kind, error, trace)


class _SeedProgress:
    """How far one training is."""

    num_steps = num_epochs = epochs_done = 0
    has_ended = False

    def __init__(self, stage: StageProgress, name: str, seed: int) -> None:
        self.stage, self.name, self.seed = stage, name, seed
        self._progress: Progress

    @property
    def epoch(self) -> int:
        """Return the epoch it is in, 1-based."""
        return min(self.epochs_done + 1, self.num_epochs)

    def describe_rest(self) -> str:
        done = self.epochs_done
        where = f"after epoch {done} of {self.num_epochs}" if done else "from the first epoch"
        return f"{self.name} {where}"

    def begin(self, num_steps: int, num_epochs: int, epochs_done: int) -> None:
        self.num_steps, self.num_epochs = num_steps, num_epochs
        self.epochs_done = epochs_done
        self._progress = self.stage.begin(self)
        self._skip(epochs_done)
        self.stage.describe()

    def advance(self, number: int = 1) -> None:
        self._progress.advance(number)

    def end_epoch(self, epoch: int) -> None:
        self.epochs_done = epoch
        self._progress.pause()
        self.stage.describe()

    def end(self) -> None:
        self.has_ended = True
        self._skip(self.num_epochs - self.epochs_done)
        self.stage.describe()

    def _skip(self, num_epochs: int) -> None:
        self._progress.skip(num_epochs * (self.num_steps // max(self.num_epochs, 1)))
