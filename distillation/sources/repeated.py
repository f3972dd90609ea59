"""Count images that two splits share, by their hashes.

Shapes: N images, each with a hash of 16 bytes (N, 16) uint8.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PIECE_ROWS = 2**14


def count_repeated(
    hashes: NDArray[np.uint8],
    labels: NDArray[np.int64],
    train_hashes: NDArray[np.uint8],
    train_labels: NDArray[np.int64],
) -> dict[str, int]:
    """Count the images of a split that train has too, and those it has in another class alone."""
    is_repeated = _are_among(hashes, train_hashes)
    has_same_label = _are_among(
        np.hstack([hashes, _to_bytes(labels)]), np.hstack([train_hashes, _to_bytes(train_labels)])
    )
    return {
        "images": int(is_repeated.sum()),
        "with_another_label": int((is_repeated & ~has_same_label).sum()),
    }


def _to_bytes(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(labels)[:, None].view(np.uint8)


def _are_among(rows: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell of each row (N, B) whether it is one of the others (M, B)."""
    whole = np.dtype((np.void, rows.shape[1]))
    known, places = np.unique(rows.view(whole).ravel(), return_inverse=True)
    is_found = np.zeros(len(known), dtype=np.bool_)
    for start in range(0, len(others), _PIECE_ROWS):
        piece = others[start : start + _PIECE_ROWS].view(whole).ravel()
        nearest = np.minimum(np.searchsorted(known, piece), len(known) - 1)
        is_found[nearest[known[nearest] == piece]] = True
    return is_found[places]
