"""Tar and zip archives, read in their own order and never unpacked to disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, cast

from distillation.base.printable import printable
from distillation.base.regular_files import UNPACKED_IN_PARTS, open_regular
from distillation.sources.decode import DataError
from distillation.sources.names import is_left_out, problem_with_name
from distillation.sources.quota import Quota

ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")
_ZIP_NAME_IS_UTF8 = 0x800
_ZIP_UNICODE_PATH = 0x7075

_UNPACKERS: dict[bytes, Callable[[Path], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
"""By the first bytes of a packed archive."""
_LONGEST_MAGIC = max(map(len, _UNPACKERS))

_MAX_HEADER_BYTES = 2**20
_LONGEST_REASON = 300

# A path inside the archive and the function that reads it; None for a folder.
Member = tuple[str, Callable[[], bytes] | None]


def archive_members(source: Path) -> Iterator[Member]:
    """Yield what an archive holds, but for what is left out; read a member before the next.

    Raises:
        DataError: the ending is unknown, the archive is damaged, or holds a link, a device, a
            name that cannot be used, a path that climbs out of it, or more than `quota` allows.
    """
    name = source.name.lower()
    if name.endswith(".zip"):
        walk = _zip_members(source)
    elif name.endswith(ARCHIVE_ENDINGS):
        walk = _tar_members(source)
    else:
        raise DataError(
            f"{source}: not a folder and not an archive; allowed endings: "
            f"{', '.join(ARCHIVE_ENDINGS)}"
        )
    if not source.is_file():
        raise DataError(f"{source} is a pipe, a socket or a device; allowed: files and folders")
    for raw_path, read in walk:
        path = _safe_path(source, raw_path)
        if is_left_out(path):
            continue
        if refused := problem_with_name(path):
            raise DataError(f"{source}: {printable(path)} {refused}")
        yield path, read


class _Metered:
    """A stream to read headers from, of which no header can have more than is allowed.

    tarfile reads what a header declares, gigabytes too, in one piece.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._num_allowed = _MAX_HEADER_BYTES
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    def allow(self, num_bytes: int) -> None:
        self._num_allowed = num_bytes

    def read(self, num_bytes: int = -1) -> bytes:
        if not 0 <= num_bytes <= self._num_allowed:
            raise tarfile.ReadError(f"a header has more than {_MAX_HEADER_BYTES:,} bytes")
        self._num_allowed -= num_bytes
        return self._stream.read(num_bytes)


def _open_unpacked(source: Path) -> IO[bytes]:
    """Open a tar archive, packed or not; which of them, its first bytes tell."""
    with open_regular(source) as file:
        start = file.read(_LONGEST_MAGIC)
    for magic, opener in _UNPACKERS.items():
        if start.startswith(magic):
            return cast(IO[bytes], opener(source))
    return open_regular(source)


def _tar_members(source: Path) -> Iterator[Member]:
    quota = Quota(source)
    with (
        _archive_errors(source),
        _open_unpacked(source) as stream,
        tarfile.open(fileobj=cast(IO[bytes], metered := _Metered(stream)), mode="r:") as archive,
    ):
        end = -1
        while (member := archive.next()) is not None:
            # tarfile would keep them all, a kilobyte each.
            archive.members = []  # type: ignore[attr-defined]
            quota.add_member(member.name, member.size)
            if sum(map(len, chain(*archive.pax_headers.items()))) > _MAX_HEADER_BYTES:
                raise tarfile.ReadError("its headers for all members are too long")
            if archive.offset <= end:
                raise tarfile.ReadError("a header leads back to an earlier one")
            end = archive.offset
            if member.isdir():
                yield member.name, None
            elif member.isreg():
                yield member.name, partial(_read_tar_member, source, archive, metered, member)
            elif not is_left_out(_safe_path(source, member.name)):
                raise DataError(
                    f"{source}: {printable(member.name)} is a link or a device; allowed: files "
                    "and folders"
                )
            metered.allow(_MAX_HEADER_BYTES)
        # tarfile takes a damaged header for the end. The end is a block of zeros, and reading on
        # to the last byte makes gzip compare its checksum.
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end marker behind the last file")
        while rest := stream.read(1 << 20):
            quota.add_bytes(len(rest))


def _read_tar_member(
    source: Path, archive: tarfile.TarFile, metered: _Metered, member: tarfile.TarInfo
) -> bytes:
    with _archive_errors(source):
        metered.allow(member.size + _MAX_HEADER_BYTES)
        file = archive.extractfile(member)
        assert file is not None  # regular members always have content
        return file.read()


def _zip_members(source: Path) -> Iterator[Member]:
    quota = Quota(source)
    with (
        _archive_errors(source),
        open_regular(source) as stream,
        zipfile.ZipFile(stream) as archive,
    ):
        for info in archive.infolist():
            quota.add_member(info.filename, info.file_size)
            name = _zip_name(source, info)
            unix_type = (info.external_attr >> 16) & 0o170000
            if unix_type not in (0, 0o100000, 0o040000):
                raise DataError(
                    f"{source}: {printable(info.filename)} is a link or a device; allowed: files "
                    "and folders"
                )
            if info.compress_type not in UNPACKED_IN_PARTS:
                raise DataError(
                    f"{source}: {printable(info.filename)} is packed by a method that is unpacked "
                    "as a whole, however large it becomes; pack the folder again as a .zip by "
                    "deflate, the usual method, or as a .tar.gz"
                )
            is_folder = info.is_dir() or name.endswith("\\")  # as Windows' tools write them
            read = None if is_folder else partial(_read_zip_member, source, archive, info)
            yield name, read


def _zip_name(source: Path, info: zipfile.ZipInfo) -> str:
    """Return a member's name; one that is not UTF-8, marked as such or not, is refused."""
    name = info.orig_filename
    if not info.flag_bits & _ZIP_NAME_IS_UTF8:
        # What is not marked, zipfile reads as code page 437, which has a letter for every byte.
        letters = name.encode("cp437")
        try:
            # WinZip and WinRAR write UTF-8 beside the name, macOS instead of it.
            name = (_zip_unicode_path(info, letters) or letters).decode("utf-8")
        except UnicodeDecodeError as error:
            shown = letters.decode("ascii", "backslashreplace")
            raise DataError(
                f"{source}: the name {shown} is not UTF-8, so its letters are those of an unknown "
                "code page; pack the folder again as a .tar, or as a .zip with UTF-8 names"
            ) from error
    if "\0" in name:
        raise DataError(
            f"{source}: {printable(name)} has a control character in its name; rename it"
        )
    return name


def _zip_unicode_path(info: zipfile.ZipInfo, letters: bytes) -> bytes | None:
    """Return the name in a member's extra field, if there is one that belongs to `letters`.

    zipfile reads it since Python 3.12 (PKWARE's APPNOTE, 4.6.9: version, CRC-32 of the name, name).
    """
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _ZIP_UNICODE_PATH and field[:5] == struct.pack("<BL", 1, zlib.crc32(letters)):
            return field[5:]
    return None


def _read_zip_member(source: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with _archive_errors(source), archive.open(info) as file:
        return file.read(info.file_size)  # never more than the quota has counted


@contextmanager
def _archive_errors(source: Path) -> Iterator[None]:
    """Turn whatever the archive modules raise over a bad archive into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except MemoryError:  # no cause: the machine's memory is not what is wrong
        raise DataError(
            f"{source}: declares more than there is memory for; the archive is damaged, or packed "
            "in a way that only a larger machine unpacks"
        ) from None
    # What the archive modules raise over hostile headers has nothing in common but Exception:
    # struct.error, KeyError, OverflowError, RecursionError, besides their own.
    except Exception as error:
        reason = " ".join(printable(str(error)).split())[:_LONGEST_REASON]
        raise DataError(f"{source}: the archive is damaged or cut short: {reason}") from error


def _safe_path(source: Path, name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{source}: {printable(name)} climbs out of the archive's folder")
    return str(path)
