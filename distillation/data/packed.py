"""The packed data set: a few large arrays that every later stage reads.

Images are uint8 in (N, H, W, 3) order, so that a batch gathered from them and viewed as
(B, 3, H, W) is already in the channels_last memory format. Arrays are plain `.npy` files, which
DVC hashes quickly and numpy can map into memory. Where images come from is `sources`' business.

Shapes: N samples, H = W = image_size, K classes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillation.errors import DistillationError

SPLITS = ("train", "validation", "test")
_META_FILE = "meta.json"


class PackedDataError(DistillationError):
    """A packed data set is missing, incomplete or inconsistent."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Images (N, H, W, 3) uint8 and labels (N,) int64 of one split."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedData:
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

    @property
    def num_classes(self) -> int:
        """Give K."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Give the height and width of the images in pixels."""
        return int(self.train.images.shape[1])

    def labeled_train(self) -> Split:
        """Give the training samples whose labels may be used."""
        if len(self.labeled) == len(self.train):
            return self.train
        return Split(images=self.train.images[self.labeled], labels=self.train.labels[self.labeled])

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


def save_packed(data: PackedData, directory: Path) -> None:
    """Write a packed set; `directory` appears complete or not at all.

    An existing directory of that name is replaced only once the new one is whole.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        temporary.chmod(0o755)
        for name in SPLITS:
            split: Split = getattr(data, name)
            np.save(temporary / f"{name}_images.npy", split.images)
            np.save(temporary / f"{name}_labels.npy", split.labels)
        np.save(temporary / "labeled.npy", data.labeled)
        meta = {
            "class_names": list(data.class_names),
            "source": data.source,
            "view_seed": data.view_seed,
            "provenance": data.provenance,
        }
        (temporary / _META_FILE).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        if directory.exists():
            shutil.rmtree(directory)
        temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_packed(directory: Path) -> PackedData:
    """Read a packed set written by `save_packed`; images are mapped, not read, until used.

    Raises:
        PackedDataError: a file is missing or does not fit the others.
    """
    try:
        meta = json.loads((directory / _META_FILE).read_text(encoding="utf-8"))
        splits = {
            name: Split(
                images=np.load(directory / f"{name}_images.npy", mmap_mode="r"),
                labels=np.load(directory / f"{name}_labels.npy"),
            )
            for name in SPLITS
        }
        data = PackedData(
            **splits,
            labeled=np.load(directory / "labeled.npy"),
            class_names=tuple(meta["class_names"]),
            source=meta["source"],
            view_seed=meta["view_seed"],
            provenance=meta["provenance"],
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise PackedDataError(
            f"{directory}: not a complete packed data set ({error}); run prepare_data again"
        ) from error
    for problem in _inconsistencies(data):
        raise PackedDataError(f"{directory}: {problem}; run prepare_data again")
    return data


def _inconsistencies(data: PackedData) -> Iterator[str]:
    """Say where the parts of a set do not fit each other."""
    for name in SPLITS:
        split: Split = getattr(data, name)
        if len(split.images) != len(split.labels):
            yield f"{name} has {len(split.images)} images and {len(split.labels)} labels"
        if split.images.shape[1:] != data.train.images.shape[1:]:
            yield f"{name} has images of {split.images.shape[1:]}, train of another size"
        if len(split) and int(split.labels.max()) >= data.num_classes:
            yield f"{name} has labels beyond its {data.num_classes} classes"
    if len(data.labeled) and int(data.labeled.max()) >= len(data.train):
        yield f"labeled has samples beyond the {len(data.train)} of train"
