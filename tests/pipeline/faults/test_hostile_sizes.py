"""Archives and pictures that are far more than they seem: refused in a sentence, in time."""

import io
import struct
import tarfile
import zipfile

import pytest
from PIL import Image

from distillation.sources.decode import decode_image
from tests.helpers.hostile import ends_well, make_picture
from tests.helpers.sources import load_source

pytestmark = pytest.mark.usefixtures("in_time")

MANY = 100_000


def zip_of_zeros(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in ("a", "b"):
            with archive.open(f"train/{name}/0.png", "w", force_zip64=True) as file:
                for _ in range(400):
                    file.write(bytes(2**20))


def zip_of_one_member_many_times(path):
    """All entries share one member's bytes, as in bombs that need no nesting."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a/000000.png", bytes(10 * 2**20))
        first = archive.filelist[0]
        for number in range(1, 2000):
            again = zipfile.ZipInfo(f"train/a/{number:06}.png")
            again.compress_type, again.CRC = first.compress_type, first.CRC
            again.compress_size, again.file_size = first.compress_size, first.file_size
            again.header_offset = first.header_offset
            archive.filelist.append(again)
        archive._didModify = True


def zip_of_many(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(MANY):
            archive.writestr(f"train/a/{number}.png", b"")


def zip_that_declares_many(path):
    zip_of_zeros_content = io.BytesIO()
    with zipfile.ZipFile(zip_of_zeros_content, "w") as archive:
        archive.writestr("train/a/0.png", make_picture())
    content = bytearray(zip_of_zeros_content.getvalue())
    content[-14:-10] = struct.pack("<HH", 0xFFFE, 0xFFFE)
    path.write_bytes(content)


def tar_of_many(path):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number in range(MANY):
            archive.addfile(tarfile.TarInfo(f"train/a/{number}.png"))


def tar_of_many_folders(path):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number in range(MANY):
            info = tarfile.TarInfo(f"train/{number}")
            info.type = tarfile.DIRTYPE
            archive.addfile(info)


def tar_of_zeros(path):
    with tarfile.open(path, "w:gz", compresslevel=9) as archive:
        info = tarfile.TarInfo("train/a/0.png")
        info.size = 2**30
        with open("/dev/zero", "rb") as zeros:  # noqa: PTH123
            archive.addfile(info, zeros)


def tar_that_is_all_header(path):
    """A header of pax says that its own text is a gigabyte."""
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("train/a/0.png")
        info.type, info.size = tarfile.XHDTYPE, 2**30
        archive.fileobj.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(10_000))


def tar_of_holes(path):
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("train/a/0.png")
        info.size = 512
        info.pax_headers = {"GNU.sparse.map": f"0,1,{2**40},0", "GNU.sparse.size": str(2**40)}
        archive.addfile(info, io.BytesIO(bytes(512)))


def tar_in_tar(path):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("train/a/0.png"))
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("train/a/0.png")
        info.size = len(inner.getvalue())
        archive.addfile(info, io.BytesIO(inner.getvalue()))


BOMBS = {
    "zeros": ("zip", zip_of_zeros),
    "one member many times": ("zip", zip_of_one_member_many_times),
    "100,000 empty files": ("zip", zip_of_many),
    "says it has many": ("zip", zip_that_declares_many),
    "100,000 empty files, tar": ("tar.gz", tar_of_many),
    "100,000 folders": ("tar.gz", tar_of_many_folders),
    "a gigabyte of zeros": ("tar.gz", tar_of_zeros),
    "a header of a gigabyte": ("tar", tar_that_is_all_header),
    "a hole of a terabyte": ("tar", tar_of_holes),
    "an archive for a picture": ("tar", tar_in_tar),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_archive_that_is_more_than_it_seems(name, tmp_path, attempt):
    attempt("bombs", name)
    ending, write = BOMBS[name]
    path = tmp_path / f"set.{ending}"
    write(path)
    assert not ends_well(lambda: load_source(path), path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def moving(format_, frames):
    first, *rest = (Image.new("RGB", (16, 16), (n % 256, 0, 0)) for n in range(frames))
    file = io.BytesIO()
    first.save(file, format_, save_all=True, append_images=rest, duration=1)
    return file.getvalue()


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF"])
def test_a_picture_that_moves(format_, attempt):
    """Its first frame is the picture, as in every viewer that shows none of the others."""
    attempt("bombs", f"{format_} of 2,000 frames")
    shapes = []
    content = moving(format_, 2000)
    ends_well(lambda: shapes.append(decode_image(content, 8, name="a file").shape), "a file")
    assert shapes == [(8, 8, 3)]
