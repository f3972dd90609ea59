"""Turn the data set a user names into one prepared set on disk.

`cifar10` and `digits` are known by name (`known`), anything else is a path to a user's folder or
archive (`files`). What a source holds is known before an image is decoded (`list_source`), and so
is where each goes (`plan`); then images are decoded in parallel and written to their places.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distillation.base.files import new_directory
from distillation.base.limits import check_space
from distillation.base.params import Params
from distillation.data.balance import measure_balance
from distillation.data.prepared import SPLITS, PreparedData, load_prepared
from distillation.data.writing import ImageWriter, total_bytes
from distillation.sources.archives import ARCHIVE_ENDINGS
from distillation.sources.decode import DataError
from distillation.sources.decoding import decode_all
from distillation.sources.doubts import find_doubts
from distillation.sources.files import FileSource, name_all
from distillation.sources.known import list_cifar10, open_cifar10, open_digits
from distillation.sources.plan import Plan, check_smallest_class, make_plan
from distillation.sources.repeated import count_repeated
from distillation.sources.source import Listing, Sample, Source, make_listing
from distillation.sources.splits import labeled_subset

logger = logging.getLogger(__name__)

_HASH_BYTES = 16


def list_source(params: Params, raw_directory: Path) -> Listing:
    """Return classes, splits and counts of the data set, without decoding or downloading anything.

    Args:
        params: `dataset` is read.
        raw_directory: folder in which archives of CIFAR-10 lie.

    Raises:
        DataError: whatever is wrong with the data set but for the images' own content.
    """
    if params.dataset == "cifar10":
        return list_cifar10(raw_directory)
    source = _open_source(params, raw_directory)
    check_smallest_class(source.labels, source.class_names, dataset=params.dataset)
    return make_listing(source.class_names, source.labels)


def prepare(
    params: Params, directory: Path, *, raw_directory: Path, num_threads: int | None = None
) -> PreparedData:
    """Read the data set named by `params.dataset`, split it and write it to `directory`.

    The directory appears complete or not at all. Memory does not grow with the images.

    Args:
        params: `dataset`, `image_size`, `prepared_size`, `seed` and the three fractions are read.
        directory: where the prepared set goes.
        raw_directory: folder in which downloaded or provided archives of CIFAR-10 lie.
        num_threads: threads that decode; as many as there are processors by default.

    Returns:
        The set, its images mapped from the files.

    Raises:
        DataError: the set cannot be read, or is too small to be split.
        PreparedDataError: it does not fit on the disk.
    """
    source = _open_source(params, raw_directory)
    plan = make_plan(source.labels, params, source.class_names)
    sides = dict.fromkeys(SPLITS, params.image_size)
    sides["train"] = params.prepared_size or params.image_size
    counts = {name: len(labels) for name, labels in plan.labels.items()}
    way_out = "make image_size or prepared_size smaller"
    check_space(directory, total_bytes(counts, sides), way_out=way_out)
    hashes = {name: np.zeros((n, _HASH_BYTES), dtype=np.uint8) for name, n in counts.items()}
    with new_directory(directory) as new, ImageWriter(new, counts, sides) as writer:
        _write_images(source, plan, writer, sides, hashes, params, num_threads)
        provenance = source.provenance()
        provenance["also_in_train"] = {
            name: count_repeated(
                hashes[name], plan.labels[name], hashes["train"], plan.labels["train"]
            )
            for name in ("validation", "test")
        }
        provenance["majority_share"] = {
            name: measure_balance(labels, source.class_names).majority_share
            for name, labels in plan.labels.items()
        }
        writer.finish(
            plan.labels,
            labeled_subset(plan.labels["train"], params.labeled_fraction, seed=params.seed),
            class_names=source.class_names,
            source=provenance["source"],
            view_seed=params.seed,
            provenance=provenance,
        )
    data = load_prepared(directory)
    _log(data, source.doubts)
    return data


def _write_images(
    source: Source,
    plan: Plan,
    writer: ImageWriter,
    sides: dict[str, int],
    hashes: dict[str, NDArray[np.uint8]],
    params: Params,
    num_threads: int | None,
) -> None:
    """Decode all images and write them to their places, and their hashes at `image_size`."""

    def store(sample: Sample) -> None:
        split, row = plan.place(sample.split, sample.index)
        image, *smaller = sample.load(sorted({sides[split], params.image_size}, reverse=True))
        writer.write(split, row, image)
        compared = np.ascontiguousarray((smaller or [image])[0])
        digest = hashlib.blake2b(compared.data, digest_size=_HASH_BYTES).digest()
        hashes[split][row] = np.frombuffer(digest, dtype=np.uint8)

    total = sum(len(labels) for labels in source.labels.values())
    problems = decode_all(source.samples(), store, total=total, num_threads=num_threads)
    if problems:
        # Whoever has one bad file has several: all are told at once.
        raise DataError(name_all(problems, "files cannot be used"))


def _log(data: PreparedData, doubts: tuple[str, ...]) -> None:
    logger.info(
        "%s: %d classes, %d training images (%d labelled), %d validation, %d test",
        data.source,
        data.num_classes,
        len(data.train),
        len(data.labeled),
        len(data.validation),
        len(data.test),
    )
    for doubt in [*doubts, *find_doubts(data)]:
        logger.warning("WARNING: %s", doubt)


def _open_source(params: Params, raw_directory: Path) -> Source:
    if params.dataset == "cifar10":
        return open_cifar10(raw_directory)
    if params.dataset == "digits":
        return open_digits()
    path = Path(params.dataset)
    if not path.exists():
        raise DataError(
            f"dataset: got {str(path)!r}, which does not exist; allowed: cifar10, digits, or "
            f"the path of an image folder or archive ({', '.join(ARCHIVE_ENDINGS)})"
        )
    return FileSource(path)
