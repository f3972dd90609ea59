"""Show how far a stage is: a bar with the time left on a terminal, a line a minute in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

from distillation.base.durations import describe_duration

logger = logging.getLogger(__name__)

LINE_SECONDS = 60.0


class Progress:
    """Counts the units of a stage's whole work: images, or the steps of all its trainings.

    On a terminal the bar stands on standard error. `pause` takes it away before something else is
    printed; the next unit brings it back.
    """

    def __init__(
        self, total: int, *, unit: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to count.

        Args:
            total: how many units there are in all.
            unit: what is counted, in the singular.
            clock: the time in seconds.
        """
        self._total, self._unit, self._clock = total, unit, clock
        self._name = ""
        self._done = self._skipped = 0
        self._start = self._last_line = clock()
        self._is_terminal = sys.stderr.isatty()
        # miniters: tqdm's own thread would bring a bar back that was taken away.
        self._bar = tqdm(
            total=total, unit=unit, leave=False, miniters=1, disable=not self._is_terminal
        )

    def describe(self, name: str) -> None:
        """Set what stands before the numbers from now on."""
        self._name = name
        self._bar.set_description(name, refresh=False)

    def advance(self, number: int = 1) -> None:
        """Count units that have just been done."""
        self._done += number
        self._bar.update(number)
        now = self._clock()
        if self._is_terminal or now - self._last_line < LINE_SECONDS:
            return
        self._last_line = now
        left = (now - self._start) * (self._total - self._done) / (self._done - self._skipped)
        logger.info(
            "%s%s of %s %ss (%.0f %%), about %s left",
            f"{self._name}: " if self._name else "",
            f"{self._done:,}",
            f"{self._total:,}",
            self._unit,
            100 * self._done / self._total,
            describe_duration(left),
        )

    def skip(self, number: int) -> None:
        """Count units that were done before, or need not be done: they say nothing of the speed."""
        self._done += number
        self._skipped += number
        for count in ("initial", "n", "last_print_n"):
            setattr(self._bar, count, getattr(self._bar, count, 0) + number)

    def pause(self) -> None:
        """Take the bar off the terminal until the next unit."""
        self._bar.clear()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
