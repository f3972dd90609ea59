"""Turn one encoded image into the pixels a model sees: the same way in training and afterwards.

It imports Pillow and numpy alone, so that a program that only predicts starts quickly. Folders,
archives, classes and splits are the business of `images` and `sources`.

Shapes: S = image_size; one image is (S, S, 3) uint8 RGB.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from distillation.base.errors import DistillationError
from distillation.base.regular_files import NotAFileError, open_regular

IMAGE_FORMATS = ("JPEG", "PNG", "WebP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
"""What can be read. Pillow knows more, but of some it starts other programs (EPS), and others it
takes for an image on little evidence."""

_BITS_PER_SAMPLE = 258  # a tag of TIFF

MAX_FILE_BYTES = 256 * 2**20
"""Size of the largest file that is read. The largest picture that is decoded has fewer pixels."""

BACKGROUND = "white"
"""What is seen through transparent pixels; the colours stored under them are arbitrary."""


_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation."""


class DataError(DistillationError):
    """A data set cannot be used as it is; the message names the file and what is allowed."""


def read_image(path: Path, image_size: int) -> NDArray[np.uint8]:
    """Read one image file; as `decode_image`, with the path as its name.

    Raises:
        DataError: the file cannot be read, or is no image that can be used.
    """
    return decode_image(read_file(path), image_size, name=str(path))


def read_file(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        DataError: it cannot be read, is larger than `MAX_FILE_BYTES`, or is no regular file.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= MAX_FILE_BYTES:
                return file.read(MAX_FILE_BYTES)
    except NotAFileError as error:
        raise DataError(f"{path} is a {error.kind}; allowed: files") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    raise DataError(f"{path} has {size:,} bytes; allowed: at most {MAX_FILE_BYTES:,}")


def decode_image(content: bytes, image_size: int, *, name: str) -> NDArray[np.uint8]:
    """Decode one image, upright, in RGB, resized and centre-cropped to a square.

    Of an animation or of several pages the first is taken. Transparency is shown on `BACKGROUND`.
    16-bit grey is scaled to 8 bits.

    Args:
        content: an encoded image in one of `IMAGE_FORMATS`, in any colour mode of up to 16 bits
            a channel.
        image_size: S, the side in pixels.
        name: what to call the image in an error.

    Returns:
        (S, S, 3) uint8.

    Raises:
        DataError: the content is not an image, is cut short, is too large or has 32 bits a channel.
    """
    return decode_at_sizes(content, (image_size,), name=name)[0]


def decode_at_sizes(content: bytes, sizes: Sequence[int], *, name: str) -> list[NDArray[np.uint8]]:
    """Decode one image once, as `decode_image`, at every side in pixels of `sizes`."""
    opened = _open(content, name=name)
    try:
        picture = _to_rgb(opened, name=name)
        return [fit(picture, size) for size in sizes]
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} is of the kind {opened.mode}, which cannot be made red, green and blue: "
            f"{error}; convert it to PNG or JPEG"
        ) from error


def fit(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """Scale a picture until it covers a square of `size` pixels, and crop it at its centre."""
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), method=Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8)


class _PillowFilters:
    """Filters of warnings while any thread decodes.

    `warnings.catch_warnings` is not safe in threads: one would put back what another has set.
    Here the first that comes sets them, and the last that goes puts back what was before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._num_inside += 1
            if self._num_inside > 1:
                return
            self._before = warnings.catch_warnings()
            self._before.__enter__()
            # Pillow warns of damaged metadata and the like, without the file's name; what matters
            # of it makes decoding fail, or is an error here.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._num_inside -= 1
            if not self._num_inside:
                self._before.__exit__(kind, error, trace)


_PILLOW_FILTERS = _PillowFilters()


def _open(content: bytes, *, name: str) -> Image.Image:
    """Decode an image and turn it upright; it stays in its own colour mode."""
    Image.init()
    known = [kind.upper() for kind in IMAGE_FORMATS if kind.upper() in Image.OPEN]
    try:
        with _PILLOW_FILTERS, Image.open(io.BytesIO(content), formats=known) as image:
            image.load()
            # Not ImageOps.exif_transpose: it writes all EXIF anew, and fails where another tag of
            # it has an unusual type.
            turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
            picture = image.copy() if turn is None else image.transpose(turn)
            if isinstance(image, TiffImageFile) and picture.mode.startswith("I;16"):
                picture.info["bits"] = image.tag_v2[_BITS_PER_SAMPLE][0]
            # Only of this format 16 bits are opened as 32.
            if image.format == "PPM" and picture.mode == "I":
                picture = picture.convert("I;16")
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is not an image that can be read; allowed: {', '.join(IMAGE_FORMATS)}"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{name} is too large; allowed: at most {Image.MAX_IMAGE_PIXELS:,} pixels "
            f"(Pillow says: {error})"
        ) from error
    # Besides the first two, what Pillow's readers stumble over in damaged files.
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        struct.error,
    ) as error:
        raise DataError(f"{name} is truncated or damaged: {error}") from error
    return picture


def _to_rgb(picture: Image.Image, *, name: str) -> Image.Image:
    """Convert an image of any mode to 8 bits of red, green and blue, without transparency."""
    if picture.mode in ("I", "F"):
        # Nothing says which of their values is white; converting would clip them unseen.
        raise DataError(f"{name} has signed or 32-bit values; allowed: 8 or 16 bits, unsigned")
    if picture.mode.startswith("I;16"):
        # Pillow's own conversion to 8 bits clips; scaling keeps the picture.
        grey = np.asarray(picture)
        scaled = (grey >> (picture.info.get("bits", 16) - 8)).astype(np.uint8)
        if "transparency" in picture.info:
            scaled[grey == picture.info["transparency"]] = 255
        return Image.fromarray(scaled).convert("RGB")
    if picture.mode == "La":  # Pillow converts it to nothing else
        picture = picture.convert("LA")
    if picture.mode in ("P", "PA", "LA", "RGBA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        background = Image.new("RGBA", picture.size, BACKGROUND)
        picture = Image.alpha_composite(background, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")
