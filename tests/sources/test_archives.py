"""What an archive may be called inside, and how often."""

import os
import re
import struct
import tarfile
import warnings
import zipfile
import zlib

import pytest

from distillation.sources.decode import DataError
from distillation.sources.files import FileSource

ENDINGS = [".tar", ".tar.gz", ".zip"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("second", ["a/0.png", "./a/0.png"])
def test_a_file_that_an_archive_holds_twice_is_refused(noise, tmp_path, ending, second):
    source = tmp_path / f"set{ending}"
    names = ["a/0.png", "b/0.png", second]
    if ending == ".zip":
        with zipfile.ZipFile(source, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for seed, name in enumerate(names):
                archive.writestr(name, noise(seed))
    else:
        (tmp_path / "picture").write_bytes(noise(0))
        with tarfile.open(source, "w:gz" if ending == ".tar.gz" else "w") as archive:
            for name in names:
                archive.add(tmp_path / "picture", arcname=name)
    message = f"{source}: a/0.png is in the archive twice; allowed: every file once"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        FileSource(source)


def test_a_zip_with_names_in_an_old_code_page_is_refused(write, noise, tmp_path):
    source = write(tmp_path / "set.zip", {"k#ter/0.png": noise(0), "ant/0.png": noise(1)})
    source.write_bytes(source.read_bytes().replace(b"k#ter", b"k\x94ter"))
    message = (
        f"{source}: the name k\\x94ter/0.png is not UTF-8, so its letters are those of an unknown "
        "code page; pack the folder again as a .tar, or as a .zip with UTF-8 names"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        FileSource(source)


def test_a_zip_whose_names_are_utf8_without_the_mark_is_read(write, noise, tmp_path):
    """macOS writes such."""
    source = write(tmp_path / "set.zip", {"k##ter/0.png": noise(0), "ant/0.png": noise(1)})
    source.write_bytes(source.read_bytes().replace(b"k##ter", "köter".encode()))
    assert FileSource(source).class_names == ("ant", "köter")


@pytest.mark.parametrize("plain", [b"???/0.png", b"\x94\x95\x96/0.png"])
def test_names_that_winzip_writes_beside_the_old_ones_are_read(noise, tmp_path, plain):
    """The old ones are in a code page, which may have no letter for them."""
    source = tmp_path / "set.zip"
    for seed, name in enumerate(("кот", "пёс")):
        stand_in = f"{seed}" + "#" * len(plain)
        field = (
            struct.pack("<BL", 1, zlib.crc32(b"%d%s" % (seed, plain))) + f"{name}/0.png".encode()
        )
        member = zipfile.ZipInfo(stand_in)
        member.extra = struct.pack("<HH", 0x7075, len(field)) + field
        with zipfile.ZipFile(source, "a") as archive:
            archive.writestr(member, noise(seed))
    source.write_bytes(source.read_bytes().replace(b"#" * len(plain), plain))
    assert FileSource(source).class_names == ("кот", "пёс")


def test_a_name_beside_another_is_not_read(noise, tmp_path):
    source = tmp_path / "set.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for name in ("ant", "bee"):
            member = zipfile.ZipInfo(f"{name}/0.png")
            field = struct.pack("<BL", 1, zlib.crc32(b"what it was called before")) + b"cow/0.png"
            member.extra = struct.pack("<HH", 0x7075, len(field)) + field
            archive.writestr(member, noise(0))
    assert FileSource(source).class_names == ("ant", "bee")


def test_a_zip_whose_names_claim_to_be_utf8_and_are_not_is_refused(write, noise, tmp_path):
    source = write(tmp_path / "set.zip", {"kä/0.png": noise(0), "ant/0.png": noise(1)})
    source.write_bytes(source.read_bytes().replace("kä".encode(), b"k\xe4\xe4"))
    with pytest.raises(DataError, match=rf"^{source}: the archive is damaged or cut short: "):
        FileSource(source)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_control_character_in_a_name_is_refused(write, noise, tmp_path, ending):
    files = {"a/0.png": noise(0), "b\nc/0.png": noise(1)}
    source = write(tmp_path / f"set{ending}", files)
    message = rf"{source}: b\nc/0.png has a control character in its name; rename it"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        FileSource(source)


def test_a_name_in_a_tar_that_is_not_utf8_is_refused(noise, tmp_path):
    source = tmp_path / "set.tar"
    (tmp_path / "picture").write_bytes(noise(0))
    with tarfile.open(source, "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        for name in ("köter/0.png", "ant/0.png"):
            archive.add(tmp_path / "picture", arcname=name)
    message = rf"{source}: k\xf6ter/0.png has a name that is not UTF-8; rename it"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        FileSource(source)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_pipe_is_no_archive(tmp_path, ending):
    source = tmp_path / f"set{ending}"
    os.mkfifo(source)
    message = f"{source} is a pipe, a socket or a device; allowed: files and folders"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        FileSource(source)


def test_a_folder_of_a_zip_may_end_with_a_backslash(noise, tmp_path):
    """As Windows' own tools write empty ones."""
    source, number = tmp_path / "set.zip", 0
    with zipfile.ZipFile(source, "w") as archive:
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                archive.writestr(f"{split}\\{name}\\1.png", noise(number := number + 1))
        archive.writestr("train\\cat\\old\\", b"")
    assert FileSource(source).class_names == ("cat", "dog")
