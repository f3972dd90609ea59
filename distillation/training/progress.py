"""Show how a training goes: a bar with the time left on a terminal, nothing elsewhere.

The line an epoch leaves behind is written by whoever receives its record, so that terminals and
log files both have it.
"""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm


class StepProgress:
    """A progress bar over a training's steps; silent when standard error is not a terminal.

    It is opened anew for every epoch, so that the epoch's line is printed with no bar in the way;
    the time left is that of the whole training.
    """

    def __init__(self, name: str, epoch: int, num_epochs: int, num_steps: int) -> None:
        self._bar = tqdm(
            initial=(epoch - 1) * num_steps,
            total=num_epochs * num_steps,
            desc=f"{name} epoch {epoch}/{num_epochs}",
            unit="step",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def advance(self) -> None:
        """Count one step."""
        self._bar.update()

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
