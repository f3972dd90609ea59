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
_DIGEST_BYTES = 32  # of a SHA-256


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
        # By the number of a file, in arrays: of a million files every Python object counts.
        self._splits = np.zeros(len(files), dtype=np.uint8)
        self._indices = np.zeros(len(files), dtype=np.int64)
        self._digests = np.zeros((len(files), _DIGEST_BYTES), dtype=np.uint8)
        self._endings = sorted({PurePosixPath(file).suffix.lower() for file in files})
        self.labels = {}
        number_of = {file: number for number, file in enumerate(files)}
        found = {split for split, _ in layout.groups}
        for place, (folder, split) in enumerate(_meanings(found).items()):
            groups = [layout.groups.get((folder, name), []) for name in self.class_names]
            self.labels[split] = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
            for index, file in enumerate(file for group in groups for file in group):
                self._splits[number_of[file]], self._indices[number_of[file]] = place, index

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in the order of the archive, or of the paths of a folder."""
        if self._path.is_dir():
            for number in range(len(self._files)):
                yield self._sample(number, self._loader(number))
            return
        members = ((file, read) for file, read in archive_members(self._path) if read is not None)
        files = iter(self._files)
        for number, (file, read) in enumerate(members):
            if next(files, None) != file:
                raise DataError(f"{self._path} was changed while it was read")
            content = read()
            yield self._sample(number, self._decoder(file, content), held_bytes=len(content))
        if next(files, None) is not None:
            raise DataError(f"{self._path} was changed while it was read")

    def provenance(self) -> dict[str, Any]:
        """Return name, sha256 and endings; the sha256 of a folder is that of names and contents."""
        if self._path.is_dir():
            digests = (digest.tobytes() for digest in self._digests)
            digest = _digest_of_folder(zip(self._files, digests, strict=True))
        else:
            digest = sha256_of(self._path)
        return {
            "source": f"image folder {self._path.name}",
            "file": self._path.name,
            "sha256": digest,
            "image_endings": self._endings,
        }

    def _sample(
        self, number: int, load: Callable[[Sequence[int]], Images], *, held_bytes: int = 0
    ) -> Sample:
        return Sample(
            split=tuple(self.labels)[self._splits[number]],
            index=int(self._indices[number]),
            load=load,
            held_bytes=held_bytes,
        )

    def _loader(self, number: int) -> Callable[[Sequence[int]], Images]:
        def load(sizes: Sequence[int]) -> Images:
            file = self._files[number]
            content = read_file(self._path / file)
            digest = hashlib.sha256(content).digest()
            self._digests[number] = np.frombuffer(digest, dtype=np.uint8)
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
    files, folders = list[str](), list[str]()
    seen: set[str] = set()
    for name, read in archive_members(path):
        if read is None:
            folders.append(name)
            continue
        if name in seen:
            raise DataError(f"{path}: {name} is in the archive twice; allowed: every file once")
        seen.add(name)
        files.append(name)
    return files, folders


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
