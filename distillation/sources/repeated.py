"""Count images that two splits share, by their hashes.

Shapes: N images, each with a hash of 16 bytes (N, 16) uint8.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count_repeated(
    hashes: NDArray[np.uint8],
    labels: NDArray[np.int64],
    train_hashes: NDArray[np.uint8],
    train_labels: NDArray[np.int64],
) -> dict[str, int]:
    """Count the images of a split that train has too, and those it has in another class alone."""
    own = [row.tobytes() for row in hashes]
    known: dict[bytes, set[int]] = {key: set() for key in own}
    for row, label in zip(train_hashes, train_labels, strict=True):
        if (found := known.get(row.tobytes())) is not None:
            found.add(int(label))
    repeated = [
        (known[key], int(label)) for key, label in zip(own, labels, strict=True) if known[key]
    ]
    return {
        "images": len(repeated),
        "with_another_label": sum(label not in others for others, label in repeated),
    }
