"""Write a prepared set image by image, to its places in the final files.

The files are those that `save_prepared` writes. They are written and read back in pieces, and
never mapped: memory does not grow with the number of images.

Shapes: N images of a split, S their side in pixels.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from distillation.base.checksums import hash_file
from distillation.data.prepared import FILES, SPLITS, hash_set, save_array, write_meta

_CHUNK_BYTES = 2**24


class ImageWriter:
    """The image files of a prepared set, open for writing at any row and from any thread."""

    def __init__(
        self, directory: Path, counts: Mapping[str, int], sides: Mapping[str, int]
    ) -> None:
        """Open the files; `counts` is N, `sides` is S, by split."""
        self._directory = directory
        self._shapes = {name: (counts[name], sides[name], sides[name], 3) for name in SPLITS}
        self._open = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        self._offsets: dict[str, int] = {}

    def __enter__(self) -> ImageWriter:
        for name, shape in self._shapes.items():
            header = _npy_header(shape)
            path = self._directory / f"{name}_images.npy"
            file = self._open.enter_context(path.open("w+b", buffering=0))
            file.write(header)
            file.truncate(len(header) + num_bytes(shape))
            self._files[name], self._offsets[name] = file, len(header)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def write(self, split: str, row: int, image: NDArray[np.uint8]) -> None:
        """Write one image (S, S, 3) to its row."""
        content = np.ascontiguousarray(image).data.cast("B")
        start = self._offsets[split] + row * len(content)
        while len(content):
            written = os.pwrite(self._files[split].fileno(), content, start)
            start, content = start + written, content[written:]

    def finish(
        self,
        labels: Mapping[str, NDArray[np.int64]],
        labeled: NDArray[np.int64],
        *,
        class_names: Sequence[str],
        source: str,
        view_seed: int,
        provenance: Mapping[str, Any],
    ) -> None:
        """Write all the rest, once every image is in its place."""
        for name in SPLITS:
            save_array(self._directory / f"{name}_labels.npy", labels[name])
        save_array(self._directory / "labeled.npy", labeled)
        digests = {f"{name}_images.npy": hashlib.sha256() for name in SPLITS}
        fingerprint = hash_set(
            class_names,
            view_seed,
            {
                name: (self._shapes[name], self._chunks(name, digests[f"{name}_images.npy"]))
                for name in SPLITS
            },
            labels,
            labeled,
        )
        checksums = {
            name: digests[name].hexdigest()
            if name in digests
            else hash_file(self._directory / name)
            for name in FILES
        }
        write_meta(
            self._directory,
            checksums=checksums,
            class_names=class_names,
            source=source,
            view_seed=view_seed,
            fingerprint=fingerprint,
            provenance=provenance,
        )

    def _chunks(self, name: str, digest: hashlib._Hash) -> Iterator[bytes]:
        """Yield a file's images in pieces; `digest` gets the whole file."""
        file = self._files[name]
        file.seek(0)
        digest.update(file.read(self._offsets[name]))
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            yield chunk


def total_bytes(counts: Mapping[str, int], sides: Mapping[str, int]) -> int:
    """Return the size of all image files; `counts` is N, `sides` is S, by split."""
    return sum(num_bytes((counts[name], sides[name], sides[name], 3)) for name in SPLITS)


def num_bytes(shape: Sequence[int]) -> int:
    """Return the size of uint8 images of a shape."""
    return int(np.prod(shape, dtype=np.int64))


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return header.getvalue()
