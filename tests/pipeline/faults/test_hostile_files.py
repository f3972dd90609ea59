"""Archives, checkpoints and pictures made to do harm: read as data or refused in a sentence.

Each attempt ends in time, runs no code that its file names, and leaves nothing but its input.
"""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from distillation.models.creation import create_classifier
from distillation.models.reading import read_checkpoint
from distillation.sources.decode import IMAGE_FORMATS, decode_image
from tests.helpers.hostile import ends_well, make_picture, mutate
from tests.helpers.sources import load_source

SIZE = 16

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def canary(tmp_path):
    """A file that code named by an input would make."""
    path = tmp_path / "canary" / "sings"
    path.parent.mkdir()
    return path


# Archives


GOOD_NAMES = [
    f"set/{split}/{kind}/{n}.png" for split in ("train", "test") for kind in "ab" for n in "012"
]
HOSTILE_MEMBERS = {
    "absolute": {"name": "/harm/train/a/9.png"},
    "climbing": {"name": "set/train/../../../harm.png"},
    "climbing class": {"name": "set/train/../9.png"},
    "control characters": {"name": "set/train/a/\x1b[31m\n9.png"},
    "very long": {"name": "set/train/a/" + "x" * 4000 + ".png"},
    "very deep": {"name": "set/train/" + "d/" * 900 + "9.png"},
    "symbolic link": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    "hard link": {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"},
    "device": {"type": tarfile.CHRTYPE},
    "pipe": {"type": tarfile.FIFOTYPE},
    "declares gigabytes": {"size": 2**40},
    "declares less than nothing": {"size": -512},
    "the same once more": {"name": GOOD_NAMES[0]},
}


ZIP_MODES = {
    tarfile.SYMTYPE: 0o120777,
    tarfile.LNKTYPE: 0o120777,
    tarfile.CHRTYPE: 0o020666,
    tarfile.FIFOTYPE: 0o010666,
}


def write_tar(path, ending, member=None):
    with tarfile.open(path, "w:gz" if ending == "tar.gz" else "w") as archive:
        for number, name in enumerate(GOOD_NAMES):
            content = make_picture(seed=number)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if member is not None:
            content = make_picture(seed=99)
            archive.fileobj.write(header(**{"size": len(content), **member}) + content)


def header(**fields):
    """Return a member's header; a size below 0 is written in its binary form."""
    info = tarfile.TarInfo("set/train/a/9.png")
    size = fields.pop("size")
    for key, value in fields.items():
        setattr(info, key, value)
    blocks = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    last = memoryview(blocks)[-512:]
    last[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    last[148:156] = b" " * 8
    last[148:156] = b"%06o\0 " % sum(last)
    return bytes(blocks)


def write_zip(path, member=None):
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(GOOD_NAMES):
            archive.writestr(name, make_picture(seed=number))
        if member is not None:
            info = zipfile.ZipInfo(member.get("name", "set/train/a/9.png"))
            kind = ZIP_MODES.get(member.get("type"), 0o100644)
            info.external_attr = kind << 16
            archive.writestr(info, member.get("linkname", "").encode() or make_picture(seed=99))
            info.file_size = member.get("size", info.file_size) % 2**32


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("member", HOSTILE_MEMBERS)
def test_an_archive_with_a_member(member, ending, tmp_path, attempt):
    attempt("hostile archives", f"{ending}: {member}")
    path = tmp_path / f"set.{ending}"
    if ending == "zip":
        write_zip(path, HOSTILE_MEMBERS[member])
    else:
        write_tar(path, ending, HOSTILE_MEMBERS[member])
    ends_well(lambda: load_source(path), path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert not [folder for folder in tmp_path.parents if (folder / "harm.png").exists()]
    assert not Path("/harm").exists()


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("ending", ["tar", "tar.gz", "zip"])
def test_an_archive_changed_at_random(number, ending, tmp_path, attempt, draw):
    path = tmp_path / f"set.{ending}"
    if ending == "zip":
        write_zip(path)
    else:
        write_tar(path, ending)
    kind, content = mutate(path.read_bytes(), draw)
    attempt("damaged archives", f"{ending}: {kind}")
    path.write_bytes(content)
    ends_well(lambda: load_source(path), path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


# Checkpoints


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def sing(canary):
    """Return pickles that would make the canary's file, by several opcodes."""
    command = f"touch {canary}"
    text = f"{command!r}".encode()
    code = f"open({str(canary)!r}, 'w')"
    as_bytes = command.encode()
    short = b"\x8c" + bytes([len(as_bytes)]) + as_bytes
    return {
        "reduce os.system": pickle.dumps(Calls(os.system, command), 2),
        "reduce eval": pickle.dumps(Calls(eval, code), 4),
        "reduce exec": pickle.dumps(Calls(exec, code), 4),
        "text GLOBAL": b"cos\nsystem\n(S" + text + b"\ntR.",
        "INST": b"(S" + text + b"\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS" + text + b"\no.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + short + b"\x85R.",
        "NEWOBJ": b"\x80\x02cos\nsystem\nX"
        + struct.pack("<I", len(as_bytes))
        + as_bytes
        + b"\x85\x81.",
        "getattr": b"cbuiltins\ngetattr\n(cos\n__dict__\nS'system'\ntR(S" + text + b"\ntR.",
        "memo without end": b"\x80\x02" + b"]q\x00" + b"h\x00a" * 10_000 + b".",
        "stack without end": b"\x80\x02" + b"(" * 200_000 + b".",
        "in a state": pickle.dumps({"state_dict": {"w": Calls(os.system, command)}}, 2),
        "as a key": pickle.dumps({Calls(os.system, command): torch.zeros(1)}, 2),
    }


PICKLES = list(sing("x"))


def in_torchs_zip(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return file.getvalue()


@pytest.mark.parametrize("packed", ["plain", "in torch's zip"])
@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle(name, packed, tmp_path, canary, attempt):
    attempt("hostile checkpoints", f"{name}, {packed}")
    content = sing(canary)[name]
    path = tmp_path / "weights.pth"
    path.write_bytes(content if packed == "plain" else in_torchs_zip(content))
    ends_well(lambda: read_checkpoint(str(path), key="teacher_checkpoint"), path)
    assert not canary.exists()


def with_header(header, data=b"\0" * 16, length=None):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + data


def one_tensor(**changes):
    return {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}


SAFETENSORS = {
    "header of exabytes": with_header(one_tensor(), length=2**62),
    "header of nothing": with_header(b"", length=0),
    "header is no JSON": with_header(b"{" * 64),
    "header nests deeply": with_header(b"[" * 100_000),
    "unknown type": with_header(one_tensor(dtype="F31")),
    "shape below zero": with_header(one_tensor(shape=[-4])),
    "shape overflows": with_header(one_tensor(shape=[2**40, 2**40])),
    "shape and bytes differ": with_header(one_tensor(shape=[5])),
    "offsets beyond the file": with_header(one_tensor(data_offsets=[0, 2**40])),
    "offsets backwards": with_header(one_tensor(data_offsets=[16, 0])),
    "overlap": with_header({**one_tensor(), "v": one_tensor()["w"]}),
    "not a number": save({"w": torch.full((4,), float("nan"))}),
    "infinite": save({"w": torch.full((4,), float("inf"))}),
    "metadata is a list": with_header({"__metadata__": ["x"], **one_tensor()}),
    "metadata of another kind": save({"w": torch.ones(4)}, {"distillation": "[" * 5000}),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_a_safetensors_file(name, tmp_path, attempt):
    attempt("hostile checkpoints", f"safetensors: {name}")
    path = tmp_path / "weights.safetensors"
    path.write_bytes(SAFETENSORS[name])
    ends_well(lambda: read_checkpoint(str(path), key="teacher_checkpoint"), path)


@pytest.fixture(scope="module")
def good_checkpoints():
    model = create_classifier("test_resnet", num_classes=3, image_size=SIZE, seed=0)
    state = {
        key: value.clone(memory_format=torch.contiguous_format)
        for key, value in model.net.state_dict().items()
    }
    file = io.BytesIO()
    torch.save(state, file)
    return {"pth": file.getvalue(), "safetensors": save(state)}


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_checkpoint_changed_at_random(number, ending, tmp_path, good_checkpoints, attempt, draw):
    kind, content = mutate(good_checkpoints[ending], draw)
    attempt("damaged checkpoints", f"{ending}: {kind}")
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(content)
    ends_well(lambda: read_checkpoint(str(path), key="teacher_checkpoint"), path)


CONFIGS = {
    "nests deeply": b"[" * 100_000,
    "is a list": b"[1]",
    "is empty": b"",
    "is no text": bytes(range(256)),
    "climbs": b'{"architecture": "../../../etc/passwd", "num_classes": 3}',
    "names a module": b'{"architecture": "os.system", "num_classes": 3}',
    "asks for the Hub": b'{"architecture": "hf-hub:a/b", "num_classes": 3}',
    "escape sequences": b'{"architecture": "\\u001b[31m", "num_classes": 3}',
    "classes below zero": b'{"architecture": "test_resnet", "num_classes": -3}',
    "classes without end": b'{"architecture": "test_resnet", "num_classes": 1e99}',
    "classes of other types": b'{"architecture": "test_resnet", "label_names": [[], {}, null]}',
    "size of gigabytes": b'{"architecture": "test_resnet", "pretrained_cfg": {"input_size": '
    b"[3, 1000000, 1000000]}}",
    "not a number": b'{"architecture": "test_resnet", "pretrained_cfg": {"mean": [NaN]}}',
    "arguments": b'{"architecture": "test_resnet", "model_args": {"norm_layer": "os.system"}}',
    "a custom loader": b'{"architecture": "test_resnet", "pretrained_cfg": {"custom_load": true, '
    b'"url": "file:///etc/passwd", "file": "/etc/passwd"}}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folders_config(name, tmp_path, good_checkpoints, attempt):
    attempt("hostile checkpoints", f"config.json: {name}")
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(good_checkpoints["safetensors"])
    (folder / "config.json").write_bytes(CONFIGS[name])

    for given in (
        {"name": "test_resnet", "checkpoint": folder},
        {"name": f"local-dir:{folder}", "pretrained": True},
    ):
        load = partial(create_classifier, **given, num_classes=3, image_size=SIZE, seed=0)
        ends_well(load, folder, "config.json")


# Pictures


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("format_", sorted(IMAGE_FORMATS))
def test_a_picture(number, format_, attempt, draw):
    content = make_picture(format_, mode="L" if format_ == "PPM" else "RGB")
    kind, content = mutate(content, draw)
    attempt("damaged pictures", f"{format_}: {kind}")
    shapes = []
    ends_well(lambda: shapes.append(decode_image(content, 8, name="a file").shape), "a file")
    assert shapes in ([], [(8, 8, 3)])


def png_of(width, height):
    file = io.BytesIO(make_picture())
    content = bytearray(file.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    return bytes(content)


@pytest.mark.parametrize(
    ("width", "height"),
    [(2**31 - 1, 2**31 - 1), (100_000, 100_000), (0, 5), (2**20, 1), (1, 2**30)],
)
def test_a_picture_that_declares(width, height, attempt):
    attempt("damaged pictures", f"declares {width} x {height} pixels")
    assert not ends_well(lambda: decode_image(png_of(width, height), 8, name="a file"), "a file")
