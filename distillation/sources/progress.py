"""Show how far a preparation is: a bar on a terminal, a line a minute in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

logger = logging.getLogger(__name__)

LINE_SECONDS = 60.0


class ImageProgress:
    """Counts images, with the time left."""

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._done = 0
        self._start = self._last_line = clock()
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, desc="images", unit="image", leave=False, disable=not self._is_terminal
        )

    def advance(self, number: int) -> None:
        """Count images that are done."""
        self._done += number
        self._bar.update(number)
        now = self._clock()
        if self._is_terminal or now - self._last_line < LINE_SECONDS:
            return
        self._last_line = now
        minutes_left = (now - self._start) * (self._total - self._done) / self._done / 60
        logger.info(
            "%s of %s images (%.0f %%), about %.0f min left",
            f"{self._done:,}",
            f"{self._total:,}",
            100 * self._done / self._total,
            minutes_left,
        )

    def __enter__(self) -> ImageProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
