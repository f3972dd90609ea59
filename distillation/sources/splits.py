"""Seeded, stratified splits of labelled samples.

Every choice is made class by class from one seeded permutation, and a fraction takes a prefix of
that permutation: the 10 % subset therefore lies inside the 20 % subset, whatever the data set.

Shapes: N samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IndexArray = NDArray[np.int64]


def split_off(
    labels: IndexArray, fraction: float, *, seed: int, keep: int = 1
) -> tuple[IndexArray, IndexArray]:
    """Split samples into the rest and a stratified held-out part.

    Args:
        labels: (N,) class indices.
        fraction: share of each class to hold out, in (0, 1).
        seed: the permutation's seed.
        keep: samples of each class that stay in the rest at least, whatever the fraction.

    Returns:
        (rest, held_out): sorted indices, disjoint, together all N. Each class has at least one
        sample held out.

    Raises:
        ValueError: a class has no more than `keep` samples.
    """
    rest, held_out = [], []
    for order in _permuted_classes(labels, seed):
        if len(order) <= keep:
            raise ValueError(
                f"class {labels[order[0]]} has {len(order)} sample(s); {keep + 1} are needed"
            )
        count = min(max(1, round(fraction * len(order))), len(order) - keep)
        held_out.append(order[:count])
        rest.append(order[count:])
    return np.sort(np.concatenate(rest)), np.sort(np.concatenate(held_out))


def labeled_subset(labels: IndexArray, fraction: float, *, seed: int) -> IndexArray:
    """Choose the stratified share of samples whose labels may be used.

    Args:
        labels: (N,) class indices.
        fraction: share of each class, in (0, 1]; at least one sample a class is kept.
        seed: the permutation's seed; a smaller fraction gives a subset of a larger one.

    Returns:
        Sorted indices into `labels`.
    """
    chosen = [
        order[: max(1, round(fraction * len(order)))] for order in _permuted_classes(labels, seed)
    ]
    return np.sort(np.concatenate(chosen))


def _permuted_classes(labels: IndexArray, seed: int) -> list[IndexArray]:
    """Return, per class, its sample indices in an order that depends on seed and class alone."""
    return [
        np.random.default_rng([seed, int(label)]).permutation(np.flatnonzero(labels == label))
        for label in np.unique(labels)
    ]
