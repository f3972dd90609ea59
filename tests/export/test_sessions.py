"""Exported files that are damaged, of another origin or wrong about themselves are refused."""

import hashlib
import json
import os
import re

import numpy as np
import onnx
import pytest

from distillation.export.checksum import PLACEHOLDER
from distillation.export.errors import ExportError
from distillation.export.onnx_file import export_onnx, set_metadata
from distillation.export.sessions import load_exported
from tests.helpers.sealed import flip_bit, flips

NAMES = [str(k) for k in range(10)]
METADATA = {"class_names": json.dumps(NAMES), "image_size": "16", "versions": "{}"}
UNFIT = r"damaged, or not written by export_student: its content does not fit its checksum; delete "


@pytest.fixture(scope="module")
def written(make_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "student.onnx"
    export_onnx(make_model(), path, image_size=16, metadata=METADATA, is_shipped=False)
    return path.read_bytes()


@pytest.fixture
def path(written, tmp_path):
    path = tmp_path / "student.onnx"
    path.write_bytes(written)
    return path


def refused(path, match):
    with pytest.raises(ExportError, match=match) as caught:
        load_exported(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert message.endswith(
        f"; delete {path} and run `dvc checkout {path}`; if DVC's cache is damaged too "
        "(docs/damaged-files.md), delete both and run export_student again"
    )


def test_the_checksum_is_that_of_the_file_with_zeros_in_its_place(path, written):
    digest = load_exported(path).metadata["sha256"]
    assert written.count(digest.encode()) == 1
    with_zeros = written.replace(digest.encode(), PLACEHOLDER.encode())
    assert hashlib.sha256(with_zeros).hexdigest() == digest
    onnx.checker.check_model(onnx.load(path))


def test_a_flipped_bit_anywhere_is_refused(path, written):
    """Also in a class's name, and in the checksum itself."""
    places = flips(len(written), count=100)
    for text in (b"class_names", b"image_size", b"sha256", b"images"):
        place = written.rindex(text)
        places += [(place + offset, offset % 8) for offset in range(0, len(text) + 70, 5)]
    for position, bit in places:
        if position < len(written):
            flip_bit(path, position, bit)
            refused(path, "damaged, or not written by export_student: ")
            path.write_bytes(written)
    flip_bit(path, len(written) // 2, 3)
    refused(path, UNFIT)
    path.write_bytes(written)
    load_exported(path)


@pytest.mark.parametrize("length", [0, 1, 100, 0.5, -1])
def test_a_file_cut_short_is_refused(path, written, length):
    path.write_bytes(written[: int(length * len(written)) if isinstance(length, float) else length])
    refused(path, r"damaged, or not written by export_student: (it has 0 bytes|its )")


def test_a_file_without_a_checksum_is_refused(path):
    proto = onnx.load(path)
    entries = [entry for entry in proto.metadata_props if entry.key != "sha256"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(entries)
    onnx.save(proto, path)
    refused(path, r"its metadata have no checksum \(sha256\); delete ")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nothing", ""):
        with pytest.raises(ExportError, match=r": no such file; `dvc repro export_student` makes"):
            load_exported(tmp_path / name)


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        *(
            ("class_names", names, r"got class_names .*, no list of names; allowed: a file that ")
            for names in ("", "{", '"a"', '{"a": 1}', "[]", "[1, 2]", '["a", null]', '["a", ""]',
                          "[" * 100_000)
        ),
        *(
            ("image_size", size, r"got image_size .*, no whole number from 1 to 1,024; allowed: a ")
            for size in ("", "x", "-16", "0", "16.0", "1e3", "4097", "9" * 5000, "¹⁶", " 16")
        ),
        ("image_size", "17", r"got input .*\[3, 16, 16\].*, where .* say .*\[3, 17, 17\]"),
        ("class_names", json.dumps(NAMES[:-1]), "got 10 logits for 9 class_names; allowed"),
        ("class_names", json.dumps([*NAMES, "x"]), "got 10 logits for 11 class_names; allowed"),
    ],
)  # fmt: skip
def test_metadata_that_are_wrong_are_refused(path, key, value, match):
    set_metadata(path, {**METADATA, key: value})
    refused(path, match)


@pytest.mark.parametrize("key", ["class_names", "image_size"])
def test_metadata_that_are_missing_are_refused(path, key):
    set_metadata(path, {name: value for name, value in METADATA.items() if name != key})
    refused(path, f"got metadata without {key}; allowed: a file that the stage export_student")


def test_another_graph_is_refused(path):
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    proto.graph.node[0].op_type = "Identity"
    onnx.save(proto, path)
    set_metadata(path, METADATA)
    refused(path, re.escape("got input [('images', 'tensor(float)', [3, 16, 16])], where its "))


@pytest.mark.parametrize("num_names", [9, 10, 11])
def test_a_graph_that_does_not_say_its_number_of_classes_is_run_once(path, num_names):
    proto = onnx.load(path)
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
    onnx.save(proto, path)
    set_metadata(path, {**METADATA, "class_names": json.dumps([*NAMES, "x"][:num_names])})
    if num_names == 10:
        assert load_exported(path).predict_logits(np.zeros((1, 16, 16, 3), np.uint8)).size == 10
    else:
        refused(path, f"got 10 logits for {num_names} class_names; allowed: a file that")


def test_another_output_is_refused(path):
    proto = onnx.load(path)
    for node in proto.graph.node:
        for index, name in enumerate(node.output):
            if name == "logits":
                node.output[index] = "scores"
    proto.graph.output[0].name = "scores"
    onnx.save(proto, path)
    set_metadata(path, METADATA)
    refused(
        path, r"got output \[\('scores', 'tensor\(float\)', 2\)\], where logits \(batch, classes\)"
    )


def test_a_text_in_the_metadata_may_look_like_the_checksum(path):
    looks_like = "\x0a\x06sha256\x12\x40" + PLACEHOLDER
    names = json.dumps([looks_like, *NAMES[1:]], ensure_ascii=False)
    set_metadata(path, {**METADATA, "class_names": names, "data": looks_like})
    exported = load_exported(path)
    assert exported.predict_logits(np.zeros((2, 16, 16, 3), dtype=np.uint8)).shape == (2, 10)
    assert re.fullmatch(r"[0-9a-f]{64}", exported.metadata["sha256"])
    assert exported.metadata["sha256"] != PLACEHOLDER
