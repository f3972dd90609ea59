"""Photographs as they stand in the page: small PNG files inside of it."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST_SIDE = 112
"""Pixels; larger images are made smaller, and smaller ones are left to the browser to enlarge."""


def to_data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image (H, W, 3) as a `data:` URI that holds a PNG file."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
