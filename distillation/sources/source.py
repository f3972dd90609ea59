"""What every source of images offers: labels before anything is decoded, and images one by one.

Shapes: N samples of one split, S a side in pixels; one image is (S, S, 3) uint8 RGB.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = list[NDArray[np.uint8]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One image to come."""

    split: str
    index: int
    """Its place among the labels of that split."""
    load: Callable[[Sequence[int]], Images]
    """Decode it at every size asked for; raises `DataError`. It may be called in any thread."""
    held_bytes: int = 0
    """What it holds in memory before it is decoded."""


class Source(abc.ABC):
    """Images with labels, in one split or several: train, validation, test.

    Attributes:
        class_names: K names; a label is an index into them.
        labels: (N,) by split; a split that the source does not bring is missing.
        doubts: what a reader must know of how the source was understood, a sentence each.
    """

    class_names: tuple[str, ...]
    labels: dict[str, NDArray[np.int64]]
    doubts: tuple[str, ...] = ()

    @abc.abstractmethod
    def samples(self) -> Iterator[Sample]:
        """Yield every sample once, in the order in which reading is quick."""

    @abc.abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return where the images come from, once all were loaded: source, file, sha256."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """What a source holds, known without decoding an image."""

    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    """The splits it brings, among train, validation and test."""
    counts: dict[str, dict[str, int]]
    """Images by split and class."""


def make_listing(class_names: Sequence[str], labels: dict[str, NDArray[np.int64]]) -> Listing:
    """Count labels by split and class."""
    return Listing(
        class_names=tuple(class_names),
        splits=tuple(labels),
        counts={
            split: dict(
                zip(
                    class_names,
                    np.bincount(found, minlength=len(class_names)).tolist(),
                    strict=True,
                )
            )
            for split, found in labels.items()
        },
    )
