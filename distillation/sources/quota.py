"""What an archive may declare to hold, against what it is: bombs end before they are unpacked.

The limits are far above those of any set of images. Where they are met nevertheless, the way out is
the folder itself, unpacked: what it takes is then known to its owner.
"""

from __future__ import annotations

from pathlib import Path

from distillation.sources.decode import MAX_FILE_BYTES, DataError

MAX_NAME_LENGTH = 4096
"""Characters of a path inside an archive; no file system takes a longer one."""

_ALWAYS_ALLOWED_BYTES = 2 * 10**9
_MAX_RATIO = 100
"""How often the archive's own size its content may have. Images hardly shrink when packed."""

_ALWAYS_ALLOWED_MEMBERS = 100_000
_LEAST_BYTES_PER_MEMBER = 50
"""Of the archive itself, for a name and the smallest of images."""
_MAX_MEMBERS = 10_000_000
"""Names of so many files take about 3 GB of memory."""


class Quota:
    """Counts what an archive declares, and refuses what is too much."""

    def __init__(self, source: Path) -> None:
        self._source = source
        size = source.stat().st_size
        self._max_bytes = max(_ALWAYS_ALLOWED_BYTES, _MAX_RATIO * size)
        most = _ALWAYS_ALLOWED_MEMBERS + size // _LEAST_BYTES_PER_MEMBER
        self._max_members = min(_MAX_MEMBERS, most)
        self._num_members = 0
        self._num_bytes = 0

    def add_member(self, name: str, num_bytes: int) -> None:
        """Count one member, also one that is left out: it is passed over by reading it.

        Raises:
            DataError: its name is too long, it is too large, or with it there is too much.
        """
        if len(name) > MAX_NAME_LENGTH:
            raise DataError(
                f"{self._source}: a path in it has {len(name):,} characters ({name[:40]!r}…); "
                f"allowed: at most {MAX_NAME_LENGTH:,}"
            )
        if not 0 <= num_bytes <= MAX_FILE_BYTES:
            raise DataError(
                f"{self._source}: {name[:200]!r} declares {num_bytes:,} bytes; allowed: at most "
                f"{MAX_FILE_BYTES:,} for a file"
            )
        self._num_members += 1
        if self._num_members > self._max_members:
            raise DataError(
                f"{self._source}: holds more than {self._max_members:,} files, which is too much "
                "for an archive of its size; unpack it, look at it, and use the folder"
            )
        self.add_bytes(num_bytes)

    def add_bytes(self, num_bytes: int) -> None:
        """Count bytes; raises `DataError` where there are too many."""
        self._num_bytes += num_bytes
        if self._num_bytes > self._max_bytes:
            raise DataError(
                f"{self._source}: unpacks to more than {self._max_bytes:,} bytes, which is too "
                "much for an archive of its size; unpack it, look at it, and use the folder"
            )
