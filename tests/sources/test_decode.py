"""One encoded image, of every format, mode and size, becomes the pixels a model sees."""

import contextlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from distillation.sources import decode as decode_module
from distillation.sources.decode import DataError, decode_image, read_image


def decode(content, size):
    return decode_image(content, size, name="set.zip: cat/7.png")


def flat(colour, size=(8, 8), mode="RGB"):
    return Image.new(mode, size, colour)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_an_rgb_image_of_the_right_size_is_unchanged(encode, file_format):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = decode(encode(pixels, file_format), 8)

    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize(
    "file_format", ["JPEG", "MPO", "WEBP", "AVIF", "GIF", "PNG", "BMP", "TIFF", "JPEG2000", "PPM"]
)
def test_formats_give_the_colour_they_hold(encode, file_format):
    image = decode(encode(flat((200, 100, 50)), file_format), 8)

    assert image.shape == (8, 8, 3)
    assert np.abs(image.astype(int) - [200, 100, 50]).max() <= 4


def test_grey_fills_three_channels(encode):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    image = decode(encode(grey), 8)

    np.testing.assert_array_equal(image, np.stack([grey] * 3, axis=-1))


def test_black_and_white(encode):
    picture = flat(0, mode="1")
    picture.putpixel((3, 5), 1)
    image = decode(encode(picture), 8)

    assert image[5, 3].tolist() == [255, 255, 255]
    assert image.sum() == 3 * 255


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_rgba_is_shown_on_white(encode, file_format):
    picture = flat((200, 0, 0, 255), mode="RGBA")
    picture.paste((9, 9, 9, 0), (0, 0, 4, 8))
    picture.putpixel((7, 7), (0, 0, 0, 128))
    options = {"lossless": True} if file_format == "WEBP" else {}
    image = decode(encode(picture, file_format, **options), 8)

    assert (image[:, :4] == 255).all()
    assert image[0, 6].tolist() == [200, 0, 0]
    assert image[7, 7].tolist() == [127, 127, 127]


def test_grey_with_alpha_is_shown_on_white(encode):
    picture = flat((40, 255), mode="LA")
    picture.putpixel((0, 0), (40, 0))
    image = decode(encode(picture), 8)

    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[0, 1].tolist() == [40, 40, 40]


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_palette_with_a_transparent_entry_is_shown_on_white(encode, file_format):
    picture = flat(1, mode="P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(0, (0, 0, 8, 4))
    image = decode(encode(picture, file_format, transparency=0), 8)

    assert (image[:4] == 255).all()
    assert (image[4:] == [200, 100, 50]).all()
    opaque = decode(encode(picture, file_format), 8)
    assert (opaque[:4] == [10, 20, 30]).all()


@pytest.mark.parametrize(
    ("mode", "clear", "solid"), [("L", 7, 90), ("RGB", (7, 8, 9), (90, 80, 70))]
)
def test_a_transparent_colour_is_shown_on_white(encode, mode, clear, solid):
    picture = flat(solid, mode=mode)
    picture.putpixel((0, 0), clear)
    image = decode(encode(picture, transparency=clear), 8)

    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[0, 1].tolist() == list(np.broadcast_to(solid, 3))


@pytest.mark.parametrize("file_format", ["TIFF", "JPEG"])
def test_cmyk_becomes_rgb(encode, file_format):
    image = decode(encode(flat((255, 0, 0, 0), mode="CMYK"), file_format), 8)

    assert np.abs(image.astype(int) - [0, 255, 255]).max() <= 4


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(encode, file_format):
    grey = np.full((8, 8), 0x40FF, dtype=np.uint16)
    grey[0, :3] = [0, 0x8000, 0xFFFF]
    image = decode(encode(grey, file_format), 8)

    assert image[0, :4].tolist() == [[v, v, v] for v in (0, 0x80, 0xFF, 0x40)]


def test_12_bit_grey_is_scaled_by_its_own_white():
    tags = [(256, 4), (257, 2), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 2)]
    tags = [*tags, (279, 12)]  # width, height, bits, …, where the rows are and how long
    entries = b"".join(struct.pack("<HHLHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    row = bytes.fromhex("000 800 fff 40f".replace(" ", ""))
    image = decode(head + row * 2, 2)  # the middle two columns

    assert image[0].tolist() == [[0x80] * 3, [0xFF] * 3]


def test_16_bit_grey_with_a_transparent_value_is_scaled_too(encode):
    grey = np.full((8, 8), 0x4000, dtype=np.uint16)
    grey[0, 0] = 1
    content = encode(grey)
    chunk = b"tRNS" + struct.pack(">H", 1)
    chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
    start = content.index(b"IDAT") - 4
    image = decode(content[:start] + chunk + content[start:], 8)

    assert image[0, 1].tolist() == [0x40, 0x40, 0x40]
    assert image[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_rotation_is_applied(encode, file_format, orientation, upright):
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:8, :8], pixels[:8, 8:], pixels[8:, :8] = 250, 160, 80  # 8×8 blocks as JPEG has them
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encode(pixels, file_format, exif=exif), 16)

    assert np.abs(image.astype(int) - upright(pixels)).max() <= 6


@pytest.mark.parametrize("tag", [(0x010F, 11), (0x011A, 2), (0x0213, 2)])  # Make, XResolution, …
def test_another_tag_of_an_unusual_type_does_not_matter(encode, tag):
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:8] = 250
    number, kind = tag  # 11: a float, 2: text
    entries = sorted([(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (number, kind, 1, b"7\0\0\0")])
    block = b"".join(struct.pack("<HHL", *one[:3]) + one[3] for one in entries)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + block + bytes(4)
    image = decode(encode(pixels, "JPEG", exif=exif), 16)

    assert np.abs(image.astype(int) - np.rot90(pixels, -1)).max() <= 6


@pytest.mark.parametrize("wide", [True, False])
def test_a_picture_that_is_not_square_is_cropped_at_its_centre(encode, wide):
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, :8, 0] = pixels[:, 8:16, 1] = pixels[:, 16:, 2] = 255
    image = decode(encode(pixels if wide else pixels.transpose(1, 0, 2).copy()), 8)

    np.testing.assert_array_equal(image, np.broadcast_to([0, 255, 0], (8, 8, 3)))


@pytest.mark.parametrize("source_size", [(3, 3), (40, 40), (40, 90), (1, 50)])
def test_any_size_is_resized_to_the_square(encode, source_size):
    image = decode(encode(flat((1, 2, 3), size=source_size)), 8)

    np.testing.assert_array_equal(image, np.broadcast_to([1, 2, 3], (8, 8, 3)))


def test_resizing_keeps_the_picture(encode):
    ramp = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None], 32, axis=0)
    image = decode(encode(ramp), 8)[..., 0].astype(int)

    block_means = ramp.reshape(8, 4, 8, 4).mean(axis=(1, 3))
    assert np.abs(image - block_means).max() <= 6
    assert (np.diff(image, axis=1) > 0).all()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.95, 0.6, 0.3])
def test_a_truncated_image_is_named(noise, file_format, kept):
    content = noise(0, size=(40, 40), file_format=file_format)
    with pytest.raises(DataError, match=r"^set\.zip: cat/7\.png is (truncated|not an image)"):
        decode(content[: int(kept * len(content))], 8)


@pytest.mark.parametrize("content", [b"", b"hello", b"<html></html>"])
def test_what_is_not_an_image_is_named(content):
    with pytest.raises(
        DataError, match=r"^set\.zip: cat/7\.png is not an image that can be read; allowed: JPEG, "
    ):
        decode(content, 8)


@pytest.mark.parametrize("side", [12, 40])  # Pillow warns above the limit, refuses above twice it
def test_a_decompression_bomb_is_refused(encode, monkeypatch, side):
    content = encode(flat(0, size=(side, side)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(
        DataError, match=r"^set\.zip: cat/7\.png is too large; allowed: at most 100 pixels"
    ):
        decode(content, 8)


def test_16_bit_grey_of_netpbm_is_scaled_too():
    grey = np.array([[0, 0x8000], [0xFFFF, 0x40FF]], dtype=">u2")
    image = decode(b"P5 2 2 65535\n" + grey.tobytes(), 2)

    assert image[..., 0].tolist() == [[0, 0x80], [0xFF, 0x40]]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bits_a_channel_have_no_clear_meaning(encode, mode):
    with pytest.raises(
        DataError,
        match=r"^set\.zip: cat/7\.png has signed or 32-bit values; allowed: ",
    ):
        decode(encode(flat(0, mode=mode), "TIFF"), 8)


@pytest.mark.parametrize("file_format", ["EPS", "ICO", "TGA"])
def test_formats_that_are_not_named_are_not_read(encode, file_format):
    with pytest.raises(DataError, match=r"is not an image that can be read; allowed: JPEG, PNG, "):
        decode(encode(flat((1, 2, 3), size=(16, 16)), file_format), 8)


def test_an_animation_gives_its_first_picture(encode):
    frames = [flat((250, 0, 0)), flat((0, 0, 250))]
    image = decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), 8)

    np.testing.assert_array_equal(image, np.broadcast_to([250, 0, 0], (8, 8, 3)))


@pytest.mark.parametrize(
    "file_format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM"]
)
def test_damaged_bytes_are_an_image_or_a_message(noise, recwarn, file_format):
    """Whatever Pillow stumbles over, it is no traceback, and no warning without a name."""
    content = noise(0, size=(24, 24), file_format=file_format)
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for position in rng.integers(0, min(len(content), 400), 3):
            damaged[position] = rng.integers(256)
        with contextlib.suppress(DataError):
            assert decode(bytes(damaged), 8).shape == (8, 8, 3)
    assert [str(warning.message) for warning in recwarn] == []


def test_a_file_is_read_like_its_content(noise, tmp_path):
    path = tmp_path / "a picture.JPG"
    path.write_bytes(noise(3, size=(20, 30), file_format="JPEG"))

    np.testing.assert_array_equal(read_image(path, 8), decode(path.read_bytes(), 8))
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"^{path} is not an image that can be read; allowed: "):
        read_image(path, 8)
    with pytest.raises(DataError, match=rf"^{path}x cannot be read: No such file"):
        read_image(tmp_path / "a picture.JPGx", 8)


def test_decoding_imports_neither_torch_nor_what_only_tables_need():
    code = (
        "import sys, distillation.sources.decode; "
        "print(sorted({'torch', 'sklearn', 'pandas', 'scipy', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_mode_that_pillow_converts_by_a_detour(monkeypatch):
    """A grey TIFF whose colour is multiplied by its transparency."""
    picture = Image.new("LA", (8, 8), (200, 255)).convert("La")
    monkeypatch.setattr(decode_module, "_open", lambda content, name: picture)
    assert decode(b"", 8)[0, 0].tolist() == [200, 200, 200]


def test_a_mode_that_pillow_cannot_convert_is_named_with_the_file(monkeypatch):
    class Odd:
        mode, info, size = "odd", {}, (8, 8)

        def convert(self, mode):
            raise ValueError("conversion from odd to RGB not supported")

    monkeypatch.setattr(decode_module, "_open", lambda content, name: Odd())
    with pytest.raises(DataError, match=r"^set\.zip: cat/7\.png is of the kind odd, which cannot"):
        decode(b"", 8)
