"""The prepared data set: a few large arrays that every later stage reads.

Images are uint8 in (N, H, W, 3) order, so that a batch gathered from them and viewed as
(B, 3, H, W) is already in the channels_last memory format. Arrays are plain `.npy` files, which
DVC hashes quickly and numpy can map into memory. Where images come from is `sources`' business.

Training images may be larger than those of validation and test, for augmentations that cut regions
out of them.

Shapes: N samples, H = W = image_size (of train: prepared_size), K classes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillation.base.checksums import (
    check_files,
    describe_repair,
    hash_file,
    read_sealed,
    seal,
)
from distillation.base.errors import DistillationError
from distillation.base.files import new_directory

SPLITS = ("train", "validation", "test")
FILES = (
    *(f"{split}_{part}.npy" for split in SPLITS for part in ("images", "labels")),
    "labeled.npy",
)
"""The arrays' files; their checksums stand in `meta.json`, and its own there too."""

_META_FILE = "meta.json"
_HASH_BYTES = 2**24  # hashed at a time, so that a mapped file is never in memory whole


class PreparedDataError(DistillationError):
    """A prepared data set is missing, incomplete or inconsistent."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Images (N, H, W, 3) uint8 and labels (N,) int64 of one split."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Everything a training or an evaluation needs to know about the data."""

    train: Split
    validation: Split
    test: Split
    labeled: NDArray[np.int64]
    """Sorted indices into `train` of the samples whose labels may be used."""
    class_names: tuple[str, ...]
    source: str
    """What the images are, as it stands beside every result, e.g. `CIFAR-10 (JPEG copy)`."""
    view_seed: int
    """Seed of the augmented views; it belongs to the data, not to a training run."""
    provenance: dict[str, Any]
    """Where the images came from: file, sha256, counts."""
    stored_fingerprint: str | None = None
    """The fingerprint as `save_prepared` wrote it, so that it is not computed again."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 of everything a training can see: arrays, class names, view seed."""
        if self.stored_fingerprint is not None:
            return self.stored_fingerprint
        return self.compute_fingerprint()

    def compute_fingerprint(self) -> str:
        """Compute the fingerprint from what is there now."""
        splits: dict[str, Split] = {name: getattr(self, name) for name in SPLITS}
        return hash_set(
            self.class_names,
            self.view_seed,
            {name: (split.images.shape, _chunks(split.images)) for name, split in splits.items()},
            {name: split.labels for name, split in splits.items()},
            self.labeled,
        )

    @property
    def num_classes(self) -> int:
        """Return K."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Return the height and width of the images in pixels, as models are measured on them."""
        return int(self.validation.images.shape[1])

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the samples per split and class, the labelled subset among them."""
        groups = {name: getattr(self, name).labels for name in SPLITS}
        groups["labeled"] = self.train.labels[self.labeled]
        return {
            split: {
                name: int(count)
                for name, count in zip(
                    self.class_names, np.bincount(labels, minlength=self.num_classes), strict=True
                )
            }
            for split, labels in groups.items()
        }


def save_prepared(data: PreparedData, directory: Path) -> None:
    """Write a prepared set; `directory` appears complete or not at all.

    An existing directory of that name is replaced only once the new one is whole.
    """
    with new_directory(directory) as new:
        for name in SPLITS:
            split: Split = getattr(data, name)
            save_array(new / f"{name}_images.npy", split.images)
            save_array(new / f"{name}_labels.npy", split.labels)
        save_array(new / "labeled.npy", data.labeled)
        write_meta(
            new,
            checksums={name: hash_file(new / name) for name in FILES},
            class_names=data.class_names,
            source=data.source,
            view_seed=data.view_seed,
            fingerprint=data.compute_fingerprint(),
            provenance=data.provenance,
        )


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a `.npy` file; what the system's error is called when it fails, numpy does not say."""
    content = io.BytesIO()
    np.save(content, array)
    path.write_bytes(content.getbuffer())


def write_meta(
    directory: Path,
    *,
    checksums: Mapping[str, str],
    class_names: Sequence[str],
    source: str,
    view_seed: int,
    fingerprint: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write what a prepared set has besides arrays, the checksums of their files among it."""
    meta = {
        "class_names": list(class_names),
        "source": source,
        "view_seed": view_seed,
        "fingerprint": fingerprint,
        "provenance": provenance,
        "files": dict(checksums),
    }
    text = json.dumps(seal(meta), indent=2) + "\n"
    (directory / _META_FILE).write_text(text, encoding="utf-8")


def load_prepared(directory: Path) -> PreparedData:
    """Read a prepared set written by `save_prepared`, and compare its files with their checksums.

    Images are mapped: after the comparison, which reads them once in pieces, they are not in memory
    until they are used.

    Raises:
        PreparedDataError: a file is missing or damaged, or does not fit the others.
    """
    repair = describe_repair(directory, by="prepare_data")
    try:
        meta = read_sealed(directory / _META_FILE)
        check_files(directory, {name: meta["files"][name] for name in FILES})
        splits = {
            name: Split(
                images=np.load(directory / f"{name}_images.npy", mmap_mode="r"),
                labels=np.load(directory / f"{name}_labels.npy"),
            )
            for name in SPLITS
        }
        data = PreparedData(
            **splits,
            labeled=np.load(directory / "labeled.npy"),
            class_names=tuple(meta["class_names"]),
            source=meta["source"],
            view_seed=meta["view_seed"],
            provenance=meta["provenance"],
            stored_fingerprint=meta["fingerprint"],
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise PreparedDataError(
            f"{directory}: not a complete prepared data set ({error}); {repair}"
        ) from error
    for problem in _inconsistencies(data):
        raise PreparedDataError(f"{directory}: {problem}; run prepare_data again")
    return data


def _inconsistencies(data: PreparedData) -> Iterator[str]:
    """Say where the parts of a set do not fit each other."""
    for name in SPLITS:
        split: Split = getattr(data, name)
        if len(split.images) != len(split.labels):
            yield f"{name} has {len(split.images)} images and {len(split.labels)} labels"
        if name != "train" and split.images.shape[1:] != data.validation.images.shape[1:]:
            yield f"{name} has images of {split.images.shape[1:]}, validation of another size"
        if not _all_below(split.labels, data.num_classes):
            yield f"{name} has labels beyond its {data.num_classes} classes"
    height, width, *channels = data.train.images.shape[1:]
    smallest = data.validation.images.shape[1:]
    is_same = (height, width, *channels) == smallest
    if not is_same and (channels != [3] or height != width or height < smallest[0]):
        yield f"train has images of {data.train.images.shape[1:]}, validation of {smallest}"
    if not len(data.labeled):
        yield "no training sample is labelled"
    if not _all_below(data.labeled, len(data.train)):
        yield f"labeled has samples beyond the {len(data.train)} of train"


def _all_below(values: NDArray[np.int64], limit: int) -> bool:
    return not len(values) or (int(values.min()) >= 0 and int(values.max()) < limit)


def hash_set(
    class_names: Sequence[str],
    view_seed: int,
    images: Mapping[str, tuple[tuple[int, ...], Iterable[bytes | memoryview]]],
    labels: Mapping[str, NDArray[np.int64]],
    labeled: NDArray[np.int64],
) -> str:
    """Return the fingerprint of a set whose images come in pieces: shape and bytes, by split."""
    digest = hashlib.sha256(json.dumps([class_names, view_seed]).encode())
    for name in SPLITS:
        shape, chunks = images[name]
        _hash_array(digest, shape, np.dtype(np.uint8), chunks)
        _hash_array(digest, labels[name].shape, labels[name].dtype, _chunks(labels[name]))
    _hash_array(digest, labeled.shape, labeled.dtype, _chunks(labeled))
    return digest.hexdigest()


def _hash_array(
    digest: hashlib._Hash,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: Iterable[bytes | memoryview],
) -> None:
    digest.update(f"{shape} {dtype}".encode())
    for chunk in chunks:
        digest.update(chunk)


def _chunks(array: NDArray[Any]) -> Iterator[memoryview]:
    rows = max(1, _HASH_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows]).data
