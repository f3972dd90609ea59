"""Files are told apart by content; those of another kind are refused by name."""

import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from distillation.models.names import ModelError
from tests.helpers.checkpoints import read, refused, same


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.bin", "weights"])
def test_the_ending_is_not_trusted(weights, tmp_path, name):
    path = tmp_path / name
    safetensors.torch.save_file(weights, path)
    assert same(read(path).state, weights)
    torch.save(dict(weights), path)
    assert same(read(path).state, weights)
    torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=False)
    assert same(read(path).state, weights)


def zip_of(**members):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)

    return write


def script(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("write", "match"),
    [
        (b"", "which is an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
        (b"\n <!DOCTYPE html><html><body>Sign in</body>", "which is a web page instead of the"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "which is a web page"),
        (b'{"error": "Unauthorized"}' + b" " * 90, "which is JSON text"),
        (b'{\n "weight_map": {"a": "model-1.safetensors"}}', "the index of a model in several"),
        (b"model_checkpoint_path: 'a'", "which is the index of TensorFlow checkpoints"),
        (b"hello world\n", "which is text that begins 'hello world'"),
        ("grüße\n".encode() * 900, "which is text that begins 'grüße"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 9, "which is an HDF5 file, as Keras writes"),
        (b"\x08\x07\x12\x07pytorch\x1a\x03", "which is an ONNX model"),
        (b"\x1f\x8b\x08\x00" * 9, "which is a gzip archive; unpack it"),
        (b"GGUF\x03\0\0\0", "which is a GGUF file"),
        (b"\x00\x01\xff\xfe" * 9, "no file of weights: it begins with the bytes 00 01 ff fe"),
        (lambda path: np.save(path.open("wb"), np.ones(3)), "which is an array of numpy"),
        (lambda path: np.savez(path.open("wb"), a=np.ones(3)), r"a file of numpy arrays \(\.npz\)"),
        (script, "which is TorchScript"),
        (zip_of(model__weights_dot_pth=b"x"), "a zip archive that holds model/weights.pth"),
        (b"PK\x03\x04", "damaged or cut short: its end is missing"),
        (b"\x80\x02.", "was written by pickle, not by torch.save"),
        (lambda path: path.write_bytes(pickle.dumps({"a": torch.ones(2)})), "by pickle, not by"),
        (struct.pack("<Q", 10**15) + b"{}", "a safetensors file, but damaged or cut short"),
    ],
)  # fmt: skip
def test_files_of_another_kind_are_refused_by_name(path, write, match):
    if isinstance(write, bytes):
        path.write_bytes(write)
    else:
        write(path)
    refused(path, match)


@pytest.mark.parametrize("keep", [0.001, 0.02, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_files_that_were_cut_short(weights, path, kind, keep):
    if kind == "safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(dict(weights), path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused(path, "damaged or cut short")


def test_a_damaged_list_of_tensors(weights, path):
    torch.save(dict(weights), path)
    content = bytearray(path.read_bytes())
    at = content.index(b"ctorch._utils") + 3
    content[at] ^= 1
    path.write_bytes(content)
    refused(path, "damaged or cut short")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_any_damaged_byte_is_noticed_or_leaves_whole_weights(weights, path, kind):
    few = dict(list(weights.items())[:6])
    if kind == "safetensors":
        safetensors.torch.save_file(few, path)
    else:
        torch.save({"model": few}, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    generator, refusals = random.Random(0), 0
    for position in [generator.randrange(1200) for _ in range(60)] + [36, len(content) - 40]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            state = read(path).state
        except ModelError:
            refusals += 1
        else:
            assert all(torch.isfinite(value).all() for value in state.values())
    assert refusals > 5
