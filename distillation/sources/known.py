"""The data sets that have a name: scikit-learn's digits, and CIFAR-10 in the raw folder.

CIFAR-10 is the official archive, which torchvision downloads where it is missing, or a copy as
images. There is no stand-in: a set that cannot be had is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distillation.base.files import new_file
from distillation.sources.archives import ARCHIVE_ENDINGS
from distillation.sources.decode import DataError
from distillation.sources.files import FileSource, sha256_of
from distillation.sources.source import Images, Listing, Sample, Source, make_listing

logger = logging.getLogger(__name__)

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_CIFAR10_OFFICIAL = "cifar-10-python.tar.gz"
_CIFAR10_IMAGES = "cifar10-images"
_CIFAR10_COUNTS = {"train": 50_000, "test": 10_000}


class ArraySource(Source):
    """Images that are in memory: grey (N, H, W) or RGB (N, H, W, 3), both uint8."""

    def __init__(
        self,
        images: Mapping[str, NDArray[np.uint8]],
        labels: Mapping[str, Sequence[int] | NDArray[Any]],
        class_names: Sequence[str],
        describe: Callable[[], dict[str, Any]],
    ) -> None:
        self._images = images
        self._describe = describe
        self.labels = {split: np.array(found, dtype=np.int64) for split, found in labels.items()}
        self.class_names = tuple(class_names)

    def samples(self) -> Iterator[Sample]:
        """Yield the samples in their order, scaled to a square of each size."""
        for split, pictures in self._images.items():
            for index, pixels in enumerate(pictures):
                yield Sample(split=split, index=index, load=_scaler(pixels))

    def provenance(self) -> dict[str, Any]:
        """Return where they come from."""
        return self._describe()


def _scaler(pixels: NDArray[np.uint8]) -> Callable[[Sequence[int]], Images]:
    return lambda sizes: [_scale(pixels, size) for size in sizes]


def _scale(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(pixels)
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture.convert("RGB"))


def open_digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits (8×8, 17 grey levels)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return ArraySource(
        {"train": np.round(digits.images * (255 / 16)).astype(np.uint8)},
        {"train": digits.target},
        [str(name) for name in digits.target_names],
        lambda: {
            "source": "digits (scikit-learn)",
            "file": "sklearn.datasets.load_digits",
            "sha256": None,
        },
    )


def open_cifar10(raw_directory: Path) -> Source:
    """Return an archive that is there, the official one first; else download the official one.

    Raises:
        DataError: an archive is damaged or something else, or cannot be downloaded.
    """
    copy = _find_copy(raw_directory)
    return Cifar10Copy(copy) if copy else _open_official(raw_directory / _CIFAR10_OFFICIAL)


def list_cifar10(raw_directory: Path) -> Listing:
    """Return what CIFAR-10 holds, without a download; raises `DataError` for a wrong archive."""
    if copy := _find_copy(raw_directory):
        source = Cifar10Copy(copy)
        return make_listing(source.class_names, source.labels)
    _check_official(raw_directory / _CIFAR10_OFFICIAL)
    classes = np.arange(len(CIFAR10_CLASSES))
    labels = {
        split: np.repeat(classes, count // len(classes)) for split, count in _CIFAR10_COUNTS.items()
    }
    return make_listing(CIFAR10_CLASSES, labels)


class Cifar10Copy(FileSource):
    """CIFAR-10 as an archive of images."""

    def __init__(self, path: Path) -> None:
        """List the archive; raises `DataError` where it holds anything else."""
        super().__init__(path)
        if self.class_names != CIFAR10_CLASSES or self.labels.keys() != {"train", "test"}:
            raise DataError(
                f"{path}: holds {sorted(self.labels)} with classes "
                f"{', '.join(self.class_names)}; allowed: train/ and test/ with "
                f"{', '.join(CIFAR10_CLASSES)}"
            )

    def provenance(self) -> dict[str, Any]:
        """Return where the images come from, and whether all are there."""
        found = super().provenance()
        is_jpeg = bool(set(found["image_endings"]) & {".jpg", ".jpeg"})
        kind = "JPEG copy" if is_jpeg else "image copy"
        counts = {split: len(labels) for split, labels in self.labels.items()}
        if counts != _CIFAR10_COUNTS:
            kind += f", {sum(counts.values()):,} of 60,000 images"
        return {**found, "source": f"CIFAR-10 ({kind})"}


def _find_copy(raw_directory: Path) -> Path | None:
    """Return the copy as images, unless the official archive is there too."""
    if (raw_directory / _CIFAR10_OFFICIAL).exists():
        return None
    copies = [raw_directory / f"{_CIFAR10_IMAGES}{ending}" for ending in ARCHIVE_ENDINGS]
    return next((path for path in copies if path.exists()), None)


def _check_official(path: Path) -> None:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    if path.exists() and not check_integrity(str(path), CIFAR10.tgz_md5):
        raise DataError(
            f"{path}: the checksum is not that of the official archive (md5 {CIFAR10.tgz_md5}); "
            "the file is damaged or another one: remove it, or put a whole one in its place"
        )


def _are_unpacked(directory: Path) -> bool:
    """Return whether the batches of an official archive are there, as torchvision verifies."""
    from torchvision.datasets import CIFAR10

    try:
        CIFAR10(str(directory), download=False)
    except RuntimeError:
        return False
    return True


def _download_official(path: Path) -> None:
    """Download the archive; after a kill or a broken connection nothing is in the way."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_url

    logger.info("downloading %s to %s", CIFAR10.url, path.parent)
    with new_file(path) as new:
        download_url(CIFAR10.url, str(new.parent), new.name, CIFAR10.tgz_md5)


def _open_official(path: Path) -> Source:
    from torchvision.datasets import CIFAR10

    _check_official(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise DataError(
            f"{path.parent} is no folder, or a link to one that is not there; must be a folder for "
            f"{_CIFAR10_OFFICIAL}"
        ) from error
    try:
        if not path.exists() and not _are_unpacked(path.parent):
            _download_official(path)
        train = CIFAR10(str(path.parent), train=True, download=True)
        test = CIFAR10(str(path.parent), train=False, download=False)
    except (OSError, RuntimeError) as error:
        if path.exists():
            raise DataError(
                f"{path} could not be unpacked beside itself ({error}); must lie in a folder that "
                "can be written to, with 0.2 GB free"
            ) from error
        raise DataError(
            f"CIFAR-10 could not be downloaded ({error}). Three ways out: "
            f"(1) put the official {_CIFAR10_OFFICIAL} into {path.parent}; "
            f"(2) put the images there as {_CIFAR10_IMAGES}.tar.gz, .tar, .tgz or .zip with "
            "train/<class>/ and test/<class>/; "
            "(3) use other data: dataset=digits needs no download, dataset=PATH takes your images"
        ) from error
    # torchvision is content with batches that were unpacked earlier, and has verified them.
    origin = path if path.exists() else path.parent / CIFAR10.base_folder
    return ArraySource(
        {"train": train.data, "test": test.data},
        {"train": train.targets, "test": test.targets},
        CIFAR10_CLASSES,
        lambda: {"source": "CIFAR-10", "file": origin.name, "sha256": sha256_of(origin)},
    )
