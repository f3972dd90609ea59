"""Archives that declare what nobody can unpack end in a sentence, in seconds and little memory."""

import bz2
import gzip
import io
import lzma
import os
import resource
import struct
import tarfile
import time
import zipfile

import pytest

from distillation.sources import quota
from distillation.sources.decode import MAX_FILE_BYTES, DataError
from distillation.sources.files import FileSource
from tests.helpers.growth import peak_of_python

ZEROS = bytes(2**20)
DAMAGED = "the archive is damaged or cut short: "


@pytest.fixture(autouse=True)
def bounded():
    """Let no test take more than seconds, or hundreds of megabytes more than before."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


def refusal(source):
    with pytest.raises(DataError) as caught:
        for _ in FileSource(source).samples():
            pass
    message = str(caught.value)
    assert message.startswith(f"{source}: ")
    assert len(message) < 1000
    assert "\n" not in message
    return message.removeprefix(f"{source}: ")


def header(name, size=0, kind=tarfile.REGTYPE, **fields):
    """Return a header alone; a size that no header can hold is written in its binary form."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(name, records, kind=tarfile.XHDTYPE):
    lines = b""
    for key, value in records.items():
        line = f" {key}={value}\n".encode()
        length = len(line) + len(str(len(line) + 2))
        lines += f"{length}".encode() + line
    return header(name, len(lines), kind) + lines.ljust(-(-len(lines) // 512) * 512, b"\0")


def write_packed(path, head, megabytes):
    """Write a head and zeros behind it, packed."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(megabytes):
            file.write(ZEROS)
    return path


@pytest.mark.parametrize("size", [MAX_FILE_BYTES + 1, 8 * 2**30, 2**62, -512, -(2**40)])
def test_a_file_that_declares_too_much(tmp_path, size):
    source = tmp_path / "set.tar"
    source.write_bytes(header("a/0.png", size) + bytes(10240))
    said = refusal(source)
    assert (
        said == f"'a/0.png' declares {size:,} bytes; allowed: at most 268,435,456 for a file"
        or (size < 0 and said.startswith(DAMAGED))
    )


def test_a_sparse_file_of_8_gigabytes(tmp_path):
    source = tmp_path / "set.tar"
    sparse = {"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.realsize": 8 * 2**30}
    content = b"1\n0\n512\n".ljust(1024, b"x")
    source.write_bytes(
        pax("x", {**sparse, "GNU.sparse.name": "a/0.png"}) + header("y", 1024) + content + ZEROS
    )
    assert refusal(source).startswith("'a/0.png' declares 8,589,934,592 bytes; allowed: at most ")


@pytest.mark.parametrize(
    "head",
    [
        header("x", 2**30, tarfile.GNUTYPE_LONGNAME),
        header("x", 2**30, tarfile.XHDTYPE),
        header("x", 2**30, tarfile.XGLTYPE),
        header("x", -512, tarfile.XHDTYPE),
    ],
    ids=["longname", "pax", "global pax", "negative"],
)
def test_a_header_without_an_end(tmp_path, head):
    source = write_packed(tmp_path / "set.tar.gz", head, 64)
    assert refusal(source) == f"{DAMAGED}a header has more than 1,048,576 bytes"


def test_a_header_that_leads_back(tmp_path):
    source = tmp_path / "set.tar"
    source.write_bytes(pax("x", {"size": "-1024"}) + header("a/0.png", 0) + bytes(10240))
    said = refusal(source)
    assert "declares -1,024 bytes" in said or said.startswith(DAMAGED)


def test_numbers_and_texts_that_are_none(tmp_path):
    for number, records in enumerate(
        [
            {"size": "9" * 5000},
            {"GNU.sparse.major": "x"},
            {"GNU.sparse.map": "a,b"},
            {"GNU.sparse.major": 0, "GNU.sparse.minor": 1, "GNU.sparse.map": "1,,2"},
            {"GNU.sparse.size": "-1"},
            {"mtime": "nan", "uid": "1e999"},
        ]
    ):
        source = tmp_path / f"{number}.tar"
        source.write_bytes(pax("x", records) + header("a/0.png", 0) + bytes(10240))
        refusal(source)


def test_a_chain_of_headers(tmp_path):
    source = tmp_path / "set.tar"
    source.write_bytes(pax("x", {"comment": "x"}) * 900 + header("a/0.png") + bytes(10240))
    assert refusal(source).startswith(DAMAGED)


@pytest.mark.parametrize("name", ["x" * 10_000, "a/" * 10_000 + "0.png"], ids=["long", "deep"])
@pytest.mark.parametrize("ending", [".tar", ".zip"])
def test_names_that_no_file_can_have(write, tmp_path, name, ending):
    said = refusal(write(tmp_path / f"set{ending}", {f"a/{name}": b"x", "b/0.png": b"x"}))
    assert "characters ('a/" in said
    assert said.endswith("allowed: at most 4,096")


def test_a_deep_path_is_read(write, noise, tmp_path):
    deep = "d/" * 1000
    names = [f"{name}/{name}{deep}{number}.png" for name in "ab" for number in range(2)]
    source = FileSource(write(tmp_path / "set.tar.gz", {name: noise(0) for name in names}))
    assert [sample.held_bytes > 0 for sample in source.samples()] == [True] * 4


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".zip"])
def test_more_files_and_bytes_than_an_archive_of_its_size_holds(
    write, tmp_path, monkeypatch, ending
):
    source = write(tmp_path / f"set{ending}", {f"{n % 2}/{n}.png": ZEROS for n in range(20)})
    monkeypatch.setattr(quota, "_ALWAYS_ALLOWED_MEMBERS", 10)
    monkeypatch.setattr(quota, "_LEAST_BYTES_PER_MEMBER", 10**9)
    assert refusal(source).startswith("holds more than 10 files, which is too much for an archive ")
    monkeypatch.setattr(quota, "_ALWAYS_ALLOWED_MEMBERS", 20)
    monkeypatch.setattr(quota, "_ALWAYS_ALLOWED_BYTES", 10 * 2**20)
    if ending == ".tar":
        assert len(list(FileSource(source).samples())) == 20
    else:
        assert refusal(source).startswith("unpacks to more than 10,485,760 bytes, which is too ")


def test_zeros_behind_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(quota, "_ALWAYS_ALLOWED_BYTES", 2**24)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("a/0.png", "b/0.png"):
            archive.addfile(tarfile.TarInfo(name))
    source = write_packed(tmp_path / "set.tar.gz", buffer.getvalue(), 100)
    assert refusal(source).startswith("unpacks to more than ")


def test_a_zip_that_declares_another_size(tmp_path):
    for field, declared in enumerate([10, 2**32 - 2]):
        source = tmp_path / f"{field}.zip"
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("a/0.png", "b/0.png"):
                archive.writestr(name, ZEROS)
        size = struct.pack("<L", len(ZEROS))
        source.write_bytes(source.read_bytes().replace(size, struct.pack("<L", declared)))
        said = refusal(source)
        assert said.startswith(DAMAGED) or "declares 4,294,967,294 bytes" in said


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_so_that_no_size_bounds_it_is_refused(tmp_path, method):
    """zipfile would unpack the whole member before it looks at the size that was declared."""
    source = tmp_path / "set.zip"
    with zipfile.ZipFile(source, "w", method) as archive:
        archive.writestr("a/0.png", ZEROS)
    assert refusal(source).startswith("a/0.png is packed by a method that is unpacked as a whole")


def test_a_member_is_unpacked_as_far_as_it_declares(tmp_path):
    source = tmp_path / "set.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/0.png", "b/0.png"):
            archive.writestr(name, 200 * ZEROS)
    size = struct.pack("<L", 200 * len(ZEROS))
    source.write_bytes(source.read_bytes().replace(size, struct.pack("<L", 10)))
    assert peak_of_python(lambda: refusal(source)) < 20e6


def test_headers_for_all_members_are_counted_together(tmp_path):
    source = tmp_path / "set.tar"
    with source.open("wb") as file:
        for number in range(20):
            file.write(pax("g", {f"key{number}": "A" * 200_000}, tarfile.XGLTYPE))
            file.write(header(f"a/{number}.png"))
        file.write(bytes(1024))
    assert "its headers for all members are too long" in refusal(source)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_is_packed_may_be_called_tar(write, noise, tmp_path, pack):
    """The first bytes tell how an archive is packed."""
    plain = write(tmp_path / "plain.tar", {f"{name}/0.png": noise(0) for name in "ab"})
    source = tmp_path / "set.tar"
    source.write_bytes(pack(plain.read_bytes()))
    assert FileSource(source).class_names == ("a", "b")
    source.write_bytes(pack(plain.read_bytes())[:-20])
    assert refusal(source).startswith(DAMAGED)


def test_a_lack_of_memory_is_a_sentence(write, noise, tmp_path, monkeypatch):
    def fail(archive, member):
        raise MemoryError

    source = write(tmp_path / "set.tar", {f"{name}/0.png": noise(0) for name in "ab"})
    monkeypatch.setattr(tarfile.TarFile, "extractfile", fail)
    assert refusal(source).startswith("declares more than there is memory for; ")


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin", "pipe"])
def test_a_link_to_a_device(tmp_path, target):
    source = tmp_path / "set.tar.gz"
    source.symlink_to(target)
    if target == "pipe":
        os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=rf"^{source} is a pipe, a socket or a device; allowed: "):
        FileSource(source)
