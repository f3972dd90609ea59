"""Read a user's images from a folder or an archive: `[split/]class/…/picture.jpg`.

A folder, a tar archive and a zip archive are read by the same rules, straight from the archive
and never unpacked to disk, so nothing in it can land anywhere. Which file belongs to which split
is decided here; what becomes of one image is `decode`'s business, how a missing split is made is
`sources`'.

Shapes: S = image_size; one image is (S, S, 3) uint8 RGB.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from distillation.data.prepared import Split
from distillation.sources.decode import DataError, decode_image, read_file

ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")
SPLIT_FOLDERS = ("train", "val", "test")
_SHOWN_PROBLEMS = 10
_JUNK_NAMES = {"Thumbs.db", "desktop.ini", "__MACOSX"}

# A path inside the source and the function that reads it; None for a folder.
Member = tuple[PurePosixPath, Callable[[], bytes] | None]


class ImageTree:
    """Decoded images by split folder and class: `tree["train"]["cat"]` is a list of images.

    A source with one level of classes has the single split `""`.
    """

    def __init__(self, source: Path, *, image_size: int) -> None:
        """Read every image of a folder or archive.

        Raises:
            DataError: a file is not a readable image or lies outside a class, an archive holds
                a link or a path that climbs out of it, a class is empty, or a split holds a
                class that `train` does not have.
        """
        self.source = source
        self.endings: set[str] = set()
        prefix = _wrapper_folders([path for path, read in _members(source) if read is not None])
        named: dict[tuple[str, str], dict[str, NDArray[np.uint8]]] = {}
        split_folders: set[str] = set()
        unusable: list[str] = []
        for path, read in _members(source):
            parts = path.parts[len(prefix) :]
            split = parts[0] if parts and parts[0] in SPLIT_FOLDERS else ""
            inner = parts[1:] if split else parts
            if read is None:
                split_folders |= {split} - {""}
                if len(inner) == 1:
                    named.setdefault((split, inner[0]), {})
                continue
            if len(inner) < 2:
                raise DataError(
                    f"{source}: {path} lies outside any class folder; allowed: "
                    "<class>/<image>, or train/<class>/<image> with test/ or val/ beside it"
                )
            images = named.setdefault((split, inner[0]), {})
            content = read()
            try:
                images[str(path)] = decode_image(content, image_size, name=f"{source}: {path}")
            except DataError as error:
                # Whoever has one bad file has several: all are told at once.
                unusable.append(str(error))
                continue
            self.endings.add(path.suffix.lower())
        if unusable:
            raise DataError(_name_all(unusable))
        for split in sorted(split_folders - {split for split, _ in named}):
            raise DataError(f"{source}: split folder {split} holds no class folders")
        self._check(named)
        self.class_names = tuple(sorted({name for _, name in named}))
        self._images = {key: [group[p] for p in sorted(group)] for key, group in named.items()}

    def splits(self) -> set[str]:
        """Return the split folders found, or `{""}` for a source with one level of classes."""
        return {split for split, _ in self._images}

    def split(self, name: str) -> Split:
        """Stack one split's images, class by class and by file name within a class."""
        images: list[NDArray[np.uint8]] = []
        labels: list[int] = []
        for index, class_name in enumerate(self.class_names):
            group = self._images.get((name, class_name), [])
            images += group
            labels += [index] * len(group)
        return Split(images=np.stack(images), labels=np.array(labels, dtype=np.int64))

    def _check(self, named: dict[tuple[str, str], dict[str, NDArray[np.uint8]]]) -> None:
        for (split, class_name), group in named.items():
            if not group:
                folder = "/".join(part for part in (split, class_name) if part)
                raise DataError(f"{self.source}: class folder {folder} holds no images")
        splits = {split for split, _ in named}
        if not named:
            raise DataError(f"{self.source}: no images found")
        if "" in splits and len(splits) > 1:
            stray = sorted(name for split, name in named if not split)
            raise DataError(
                f"{self.source}: class folders {', '.join(stray)} stand beside train/, val/ or "
                "test/; allowed: either split folders or class folders at the top"
            )
        base = {name for split, name in named if split in ("", "train")}
        if not base:
            raise DataError(f"{self.source}: there is no train/ folder beside {sorted(splits)}")
        for split, class_name in sorted(named):
            if class_name not in base:
                raise DataError(
                    f"{self.source}: class {class_name} is in {split}/ but not in train/"
                )
        if len(base) < 2:
            raise DataError(
                f"{self.source}: found one class ({', '.join(base)}); at least two are needed"
            )


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's relative paths and contents in sorted order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for member, read in _folder_members(path):
        if read is not None and not _is_junk(member):
            digest.update(
                str(member).encode(errors="surrogateescape")
                + b"\0"
                + hashlib.sha256(read()).digest()
            )
    return digest.hexdigest()


def _members(source: Path) -> Iterator[Member]:
    """Walk a folder or archive in its own order; contents must be read while walking."""
    if source.is_dir():
        walk = _folder_members(source)
    elif source.name.lower().endswith(".zip"):
        walk = _zip_members(source)
    elif source.name.lower().endswith(ARCHIVE_ENDINGS):
        walk = _tar_members(source)
    else:
        raise DataError(
            f"{source}: not a folder and not an archive; allowed endings: "
            f"{', '.join(ARCHIVE_ENDINGS)}"
        )
    for path, read in walk:
        if not _is_junk(path):
            yield path, read


def _folder_members(source: Path) -> Iterator[Member]:
    for path in sorted(_walk(source)):
        relative = PurePosixPath(path.relative_to(source).as_posix())
        yield relative, None if path.is_dir() else partial(read_file, path)


def _walk(source: Path) -> Iterator[Path]:
    """Yield all files and folders below one, also what links lead to."""
    for folder, folders, files in os.walk(source, followlinks=True):
        for name in folders:
            path = Path(folder, name)
            if path.is_symlink() and path.resolve() in [p.resolve() for p in path.parents]:
                raise DataError(f"{path} is a link to a folder that it lies in itself")
        yield from (Path(folder, name) for name in [*folders, *files])


def _tar_members(source: Path) -> Iterator[Member]:
    with _archive_errors(source), tarfile.open(source) as archive:
        for member in archive:
            path = _safe_path(source, member.name)
            if member.isdir():
                yield path, None
            elif member.isreg():
                yield path, partial(_read_tar_member, source, archive, member)
            else:
                raise DataError(
                    f"{source}: {member.name} is a link or a device; allowed: files and folders"
                )
        # tarfile takes a damaged header for the end. The end is a block of zeros, and reading on
        # to the last byte makes gzip compare its checksum.
        stream = archive.fileobj
        assert stream is not None
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end marker behind the last file")
        while stream.read(1 << 20):
            pass


def _read_tar_member(source: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    with _archive_errors(source):
        file = archive.extractfile(member)
        assert file is not None  # regular members always have content
        return file.read()


def _zip_members(source: Path) -> Iterator[Member]:
    with _archive_errors(source), zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            path = _safe_path(source, info.filename)
            unix_type = (info.external_attr >> 16) & 0o170000
            if unix_type not in (0, 0o100000, 0o040000):
                raise DataError(
                    f"{source}: {info.filename} is a link or a device; allowed: files and folders"
                )
            yield path, None if info.is_dir() else partial(_read_zip_member, source, archive, info)


def _read_zip_member(source: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with _archive_errors(source):
        return archive.read(info)


@contextmanager
def _archive_errors(source: Path) -> Iterator[None]:
    """Turn whatever the archive modules raise over a bad archive into a `DataError`."""
    try:
        yield
    # RuntimeError is zipfile's for encryption and unknown compression.
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        RuntimeError,
    ) as error:
        raise DataError(f"{source}: the archive is damaged or cut short: {error}") from error


def _name_all(problems: list[str]) -> str:
    """Put what is wrong with files on one line, which ends somewhere."""
    if len(problems) == 1:
        return problems[0]
    shown = "; ".join(problems[:_SHOWN_PROBLEMS])
    rest = len(problems) - _SHOWN_PROBLEMS
    return f"{len(problems)} files cannot be used: {shown}" + (
        f"; and {rest} more" if rest > 0 else ""
    )


def _safe_path(source: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{source}: {name} climbs out of the archive's folder")
    return path


def _is_junk(path: PurePosixPath) -> bool:
    """Tell hidden files and the droppings of file managers from a user's files."""
    return any(part in _JUNK_NAMES or part.startswith(".") for part in path.parts)


def _wrapper_folders(files: list[PurePosixPath]) -> tuple[str, ...]:
    """Return the folders wrapped around the whole set, as most archives of a folder have one."""
    prefix: tuple[str, ...] = ()
    while True:
        heads = {path.parts[len(prefix)] for path in files if len(path.parts) > len(prefix)}
        depths = {len(path.parts) - len(prefix) for path in files}
        if len(heads) != 1 or min(depths) < 3 or heads <= set(SPLIT_FOLDERS):
            return prefix
        prefix += (heads.pop(),)
