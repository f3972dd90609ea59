"""Decide from labels alone which sample goes where: before an image is decoded.

Shapes: N samples of a split of the source, M of a split of the prepared set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distillation.base.params import Params
from distillation.data.prepared import SPLITS
from distillation.sources.decode import DataError
from distillation.sources.splits import IndexArray, split_off


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Where every sample of a source goes in the prepared set."""

    labels: dict[str, IndexArray]
    """(M,) by split of the prepared set."""
    _places: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]

    def place(self, split: str, index: int) -> tuple[str, int]:
        """Return split and row in the prepared set of a sample of the source."""
        numbers, rows = self._places[split]
        return SPLITS[numbers[index]], int(rows[index])


def make_plan(labels: Mapping[str, IndexArray], params: Params, class_names: Sequence[str]) -> Plan:
    """Make the splits a source does not bring: test from all, validation from train.

    Raises:
        DataError: a class is too small to be split.
    """
    check_smallest_class(labels, class_names, dataset=params.dataset)
    origins = {split: (split, np.arange(len(found))) for split, found in labels.items()}
    missing = [name for name in ("test", "validation") if name not in labels]
    fractions = {"test": params.test_fraction, "validation": params.validation_fraction}
    for still_missing, name in zip(range(len(missing), 0, -1), missing, strict=True):
        _, indices = origins["train"]
        rest, held_out = split_off(
            labels["train"][indices], fractions[name], seed=params.seed, keep=still_missing
        )
        origins["train"], origins[name] = ("train", indices[rest]), ("train", indices[held_out])
    places = {
        split: (np.empty(len(found), dtype=np.int64), np.empty(len(found), dtype=np.int64))
        for split, found in labels.items()
    }
    for number, name in enumerate(SPLITS):
        origin, indices = origins[name]
        places[origin][0][indices] = number
        places[origin][1][indices] = np.arange(len(indices))
    prepared_labels = {name: labels[origins[name][0]][origins[name][1]] for name in SPLITS}
    return Plan(labels=prepared_labels, _places=places)


def check_smallest_class(
    labels: Mapping[str, IndexArray], class_names: Sequence[str], *, dataset: str
) -> None:
    """Raise `DataError` where a class has too few training images for all missing splits."""
    smallest = 3 - len(labels.keys() - {"train"})
    counts = np.bincount(labels["train"], minlength=len(class_names))
    if counts.min() < smallest:
        raise DataError(
            f"{dataset}: class {class_names[int(counts.argmin())]} has {counts.min()} "
            f"image(s) to train on; allowed: at least {smallest}, so that every split has one"
        )
