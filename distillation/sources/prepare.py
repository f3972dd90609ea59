"""Turn the data set a user names into one prepared set.

`cifar10` reads an archive in the raw folder, or downloads the official one with torchvision;
`digits` is scikit-learn's bundled set; anything else is a path to a user's folder or archive.
There is no stand-in: a set that cannot be had is an error.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distillation.base.params import Params
from distillation.data.prepared import PreparedData, Split
from distillation.sources.decode import DataError
from distillation.sources.images import ARCHIVE_ENDINGS, ImageTree, sha256_of
from distillation.sources.splits import labeled_subset, split_off

logger = logging.getLogger(__name__)

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_CIFAR10_OFFICIAL = "cifar-10-python.tar.gz"
_CIFAR10_IMAGES = "cifar10-images"
_CIFAR10_COUNTS = (50_000, 10_000)
_SMALL_TEST = 100


def prepare(params: Params, *, raw_directory: Path) -> PreparedData:
    """Read the data set named by `params.dataset` and split it.

    Args:
        params: `dataset`, `image_size`, `seed` and the three fractions are read.
        raw_directory: folder in which downloaded or provided archives of CIFAR-10 lie.

    Raises:
        DataError: the set cannot be read, or is too small to be split.
    """
    if params.dataset == "cifar10":
        splits, provenance = _read_cifar10(raw_directory, params.image_size)
    elif params.dataset == "digits":
        splits, provenance = _read_digits(params.image_size)
    else:
        splits, provenance = _read_folder(Path(params.dataset), params.image_size)
    class_names: tuple[str, ...] = provenance.pop("class_names")
    train, validation, test = _complete_splits(splits, params, class_names)
    provenance["also_in_train"] = {
        "validation": _count_repeated(validation, train),
        "test": _count_repeated(test, train),
    }
    data = PreparedData(
        train=train,
        validation=validation,
        test=test,
        labeled=labeled_subset(train.labels, params.labeled_fraction, seed=params.seed),
        class_names=class_names,
        source=provenance["source"],
        view_seed=params.seed,
        provenance=provenance,
    )
    logger.info(
        "%s: %d classes, %d training images (%d labelled), %d validation, %d test",
        data.source,
        data.num_classes,
        len(data.train),
        len(data.labeled),
        len(data.validation),
        len(data.test),
    )
    for doubt in _doubts(data):
        logger.warning("WARNING: %s", doubt)
    return data


def _doubts(data: PreparedData) -> list[str]:
    """Say what a reader of accuracies on this data must know; the provenance has the counts."""
    doubts = []
    for name, repeated in data.provenance["also_in_train"].items():
        if repeated["images"]:
            other = repeated["with_another_label"]
            of_these = f", {other} of them in another class" if other else ""
            doubts.append(
                f"{repeated['images']} of {len(getattr(data, name))} {name} images are in train "
                f"too, pixel by pixel{of_these}: accuracies on {name} are better than they should"
            )
    missing = np.flatnonzero(np.bincount(data.test.labels, minlength=data.num_classes) == 0)
    if len(missing):
        names = ", ".join(data.class_names[index] for index in missing)
        doubts.append(f"test has no image of {names}: nothing is measured there")
    if len(data.test) < _SMALL_TEST:
        doubts.append(
            f"test has {len(data.test)} images: each is worth {100 / len(data.test):.1f} points of "
            "accuracy, and smaller differences mean nothing"
        )
    return doubts


def _count_repeated(split: Split, train: Split) -> dict[str, int]:
    """Count the images of a split that train has too, and those it has in another class alone."""
    labels: dict[bytes, set[int]] = {}
    for image, label in zip(train.images, train.labels, strict=True):
        labels.setdefault(_hash(image), set()).add(int(label))
    repeated = [
        (labels[key], int(label))
        for image, label in zip(split.images, split.labels, strict=True)
        if (key := _hash(image)) in labels
    ]
    return {
        "images": len(repeated),
        "with_another_label": sum(label not in known for known, label in repeated),
    }


def _hash(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _complete_splits(
    splits: dict[str, Split], params: Params, class_names: tuple[str, ...]
) -> tuple[Split, Split, Split]:
    """Make the splits a source does not bring: test from all, validation from train."""
    splits = dict(splits)
    smallest = 3 - len(splits.keys() - {"train"})
    counts = np.bincount(splits["train"].labels, minlength=len(class_names))
    if counts.min() < smallest:
        raise DataError(
            f"{params.dataset}: class {class_names[int(counts.argmin())]} has {counts.min()} "
            f"image(s) to train on; allowed: at least {smallest}, so that every split has one"
        )
    missing = [name for name in ("test", "validation") if name not in splits]
    fractions = {"test": params.test_fraction, "validation": params.validation_fraction}
    for still_missing, name in zip(range(len(missing), 0, -1), missing, strict=True):
        train = splits["train"]
        rest, held_out = split_off(
            train.labels, fractions[name], seed=params.seed, keep=still_missing
        )
        splits["train"], splits[name] = _take(train, rest), _take(train, held_out)
    return splits["train"], splits["validation"], splits["test"]


def _take(split: Split, indices: NDArray[np.int64]) -> Split:
    return Split(images=split.images[indices], labels=split.labels[indices])


def _read_folder(source: Path, image_size: int) -> tuple[dict[str, Split], dict[str, Any]]:
    if not source.exists():
        raise DataError(
            f"dataset: got {str(source)!r}, which does not exist; allowed: cifar10, digits, or "
            f"the path of an image folder or archive ({', '.join(ARCHIVE_ENDINGS)})"
        )
    tree = ImageTree(source, image_size=image_size)
    names_found = tree.splits()
    if names_found == {""}:
        splits = {"train": tree.split("")}
    elif names_found == {"train", "val", "test"}:
        names = {"train": "train", "val": "validation", "test": "test"}
        splits = {names[name]: tree.split(name) for name in names_found}
    else:
        # A lone val/ is the set's own held-out part, as in ImageNet: it is the test set here.
        splits = {
            "train" if name == "train" else "test": tree.split(name) for name in sorted(names_found)
        }
    return splits, {
        "source": f"image folder {source.name}",
        "file": source.name,
        "sha256": sha256_of(source),
        "image_endings": sorted(tree.endings),
        "class_names": tree.class_names,
    }


def _read_digits(image_size: int) -> tuple[dict[str, Split], dict[str, Any]]:
    """Return scikit-learn's 1,797 handwritten digits (8×8, 17 grey levels), enlarged."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack(
        [
            np.asarray(
                Image.fromarray(picture)
                .resize((image_size, image_size), Image.Resampling.BICUBIC)
                .convert("RGB")
            )
            for picture in grey
        ]
    )
    return {"train": Split(images=images, labels=digits.target.astype(np.int64))}, {
        "source": "digits (scikit-learn)",
        "file": "sklearn.datasets.load_digits",
        "sha256": None,
        "class_names": tuple(str(name) for name in digits.target_names),
    }


def _read_cifar10(raw_directory: Path, image_size: int) -> tuple[dict[str, Split], dict[str, Any]]:
    """Read an archive that is there, the official one first; else download the official one."""
    official = raw_directory / _CIFAR10_OFFICIAL
    copies = [raw_directory / f"{_CIFAR10_IMAGES}{ending}" for ending in ARCHIVE_ENDINGS]
    copy = next((path for path in copies if path.exists()), None)
    if copy is not None and not official.exists():
        return _read_cifar10_copy(copy, image_size)
    return _read_cifar10_official(official, image_size)


def _read_cifar10_copy(path: Path, image_size: int) -> tuple[dict[str, Split], dict[str, Any]]:
    splits, provenance = _read_folder(path, image_size)
    if provenance["class_names"] != CIFAR10_CLASSES or splits.keys() != {"train", "test"}:
        raise DataError(
            f"{path}: holds {sorted(splits)} with classes {', '.join(provenance['class_names'])}; "
            f"allowed: train/ and test/ with {', '.join(CIFAR10_CLASSES)}"
        )
    is_jpeg = bool(set(provenance["image_endings"]) & {".jpg", ".jpeg"})
    kind = "JPEG copy" if is_jpeg else "image copy"
    counts = (len(splits["train"]), len(splits["test"]))
    if counts != _CIFAR10_COUNTS:
        kind += f", {sum(counts):,} of 60,000 images"
    return splits, {**provenance, "source": f"CIFAR-10 ({kind})"}


def _read_cifar10_official(path: Path, image_size: int) -> tuple[dict[str, Split], dict[str, Any]]:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    if path.exists() and not check_integrity(str(path), CIFAR10.tgz_md5):
        raise DataError(
            f"{path}: the checksum is not that of the official archive (md5 {CIFAR10.tgz_md5}); "
            "the file is damaged or another one: remove it, or put a whole one in its place"
        )
    if not path.exists():
        logger.info("downloading %s to %s", CIFAR10.url, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        train = CIFAR10(str(path.parent), train=True, download=True)
        test = CIFAR10(str(path.parent), train=False, download=False)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 could not be downloaded ({error}). Three ways out: "
            f"(1) put the official {_CIFAR10_OFFICIAL} into {path.parent}; "
            f"(2) put the images there as {_CIFAR10_IMAGES}.tar.gz, .tar, .tgz or .zip with "
            "train/<class>/ and test/<class>/; "
            "(3) use other data: dataset=digits needs no download, dataset=PATH takes your images"
        ) from error
    # torchvision is content with batches that were unpacked earlier, and has verified them.
    origin = path if path.exists() else path.parent / CIFAR10.base_folder
    splits = {
        "train": _pack_official(train, image_size),
        "test": _pack_official(test, image_size),
    }
    return splits, {
        "source": "CIFAR-10",
        "file": origin.name,
        "sha256": sha256_of(origin),
        "class_names": CIFAR10_CLASSES,
    }


def _pack_official(dataset: Any, image_size: int) -> Split:
    images: NDArray[np.uint8] = dataset.data
    if image_size != images.shape[1]:
        images = np.stack(
            [
                np.asarray(
                    Image.fromarray(picture).resize(
                        (image_size, image_size), Image.Resampling.BICUBIC
                    )
                )
                for picture in images
            ]
        )
    return Split(images=images, labels=np.array(dataset.targets, dtype=np.int64))
