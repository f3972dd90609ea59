"""A user's images from a folder or an archive: `[split/]class/…/picture.jpg`.

A folder, a tar archive and a zip archive are read by the same rules. Listing one opens no image:
whatever is wrong with names and folders is an error before the first is decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from distillation.sources.archives import archive_members
from distillation.sources.decode import DataError, decode_at_sizes, read_file
from distillation.sources.layout import make_layout
from distillation.sources.source import Images, Sample, Source
from distillation.sources.walk import walk_folder

_SHOWN_PROBLEMS = 10


class FileSource(Source):
    """A folder or an archive of images, listed when it is made and read by `samples`."""

    def __init__(self, path: Path) -> None:
        """List the source.

        Raises:
            DataError: something in it cannot be read or is not what `layout`, `archives` and
                `names` allow.
        """
        self._path = path
        files, folders = _list(path)
        self._files = files
        layout = make_layout(files, folders, source=str(path))
        self.class_names = layout.class_names
        self.doubts = tuple(
            f"every class has a subfolder {name}: its images are taken for the class's"
            for name in layout.nested
        )
        self._places: dict[str, tuple[str, int]] = {}
        self._digests: dict[str, bytes] = {}
        self._endings = sorted({PurePosixPath(file).suffix.lower() for file in files})
        self.labels = {}
        found = {split for split, _ in layout.groups}
        for folder, split in _meanings(found).items():
            groups = [layout.groups.get((folder, name), []) for name in self.class_names]
            self.labels[split] = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
            for index, file in enumerate(file for group in groups for file in group):
                self._places[file] = (split, index)

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in the order of the archive, or of the paths of a folder."""
        if self._path.is_dir():
            for file in self._files:
                split, index = self._places[file]
                yield Sample(split=split, index=index, load=self._loader(file))
            return
        for file, read in archive_members(self._path):
            if read is None:
                continue
            if file not in self._places:
                raise DataError(f"{self._path} was changed while it was read")
            split, index = self._places[file]
            content = read()
            yield Sample(
                split=split,
                index=index,
                load=self._decoder(file, content),
                held_bytes=len(content),
            )

    def provenance(self) -> dict[str, Any]:
        """Return name, sha256 and endings; the sha256 of a folder is that of names and contents."""
        if self._path.is_dir():
            digest = _digest_of_folder((file, self._digests[file]) for file in self._files)
        else:
            digest = sha256_of(self._path)
        return {
            "source": f"image folder {self._path.name}",
            "file": self._path.name,
            "sha256": digest,
            "image_endings": self._endings,
        }

    def _loader(self, file: str) -> Callable[[Sequence[int]], Images]:
        def load(sizes: Sequence[int]) -> Images:
            content = read_file(self._path / file)
            self._digests[file] = hashlib.sha256(content).digest()
            return self._decoder(file, content)(sizes)

        return load

    def _decoder(self, file: str, content: bytes) -> Callable[[Sequence[int]], Images]:
        return lambda sizes: decode_at_sizes(content, sizes, name=f"{self._path}: {file}")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's relative paths and contents in sorted order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files, _ = _list(path)
    return _digest_of_folder(
        (file, hashlib.sha256(read_file(path / file)).digest()) for file in files
    )


def name_all(problems: Sequence[str], what: str) -> str:
    """Put what is wrong with files on one line, which ends somewhere."""
    if len(problems) == 1:
        return problems[0]
    shown = "; ".join(problems[:_SHOWN_PROBLEMS])
    rest = len(problems) - _SHOWN_PROBLEMS
    return f"{len(problems)} {what}: {shown}" + (f"; and {rest} more" if rest > 0 else "")


def _list(path: Path) -> tuple[list[str], list[str]]:
    """Return files and folders of a folder or an archive, folders and their files sorted."""
    if path.is_dir():
        walk = walk_folder(path)
        if walk.problems:
            raise DataError(
                name_all([found.message for found in walk.problems], "paths cannot be used")
            )
        return walk.files, walk.folders
    members = [(name, read is None) for name, read in archive_members(path)]
    return (
        [name for name, is_folder in members if not is_folder],
        [name for name, is_folder in members if is_folder],
    )


def _meanings(splits: set[str]) -> dict[str, str]:
    """Return what the splits of a layout are in the prepared set.

    A lone validation folder is the set's own held-out part, as in ImageNet: it is the test set.
    """
    if splits == {""}:
        return {"": "train"}
    if splits == {"train", "validation"}:
        return {"train": "train", "validation": "test"}
    return {name: name for name in ("train", "validation", "test") if name in splits}


def _digest_of_folder(files: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for file, content_digest in files:
        digest.update(file.encode() + b"\0" + content_digest)
    return digest.hexdigest()
