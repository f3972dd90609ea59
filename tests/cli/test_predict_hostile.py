"""What an accident or an attacker hands to `predict`: names, numbers, models, readers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distillation.cli import predict
from distillation.export.onnx_file import export_onnx
from distillation.models.creation import create_classifier
from distillation.sources.decode import MAX_FILE_BYTES

CLASSES = ("ant\x1b[31m", "bee", "köter")
SIZE = 16


def export(path, *, bias=0.0):
    model = create_classifier("test_resnet", num_classes=3, image_size=SIZE, seed=1)
    with torch.no_grad():
        list(model.parameters())[-1][1] = bias
    metadata = {"class_names": json.dumps(CLASSES), "image_size": str(SIZE)}
    export_onnx(model, path, image_size=SIZE, metadata=metadata)
    return path


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return export(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def picture(tmp_path, monkeypatch):
    """Return an image in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def run(model_path, capsys):
    def call(*arguments, model=model_path):
        status = predict.main([*map(str, arguments), "--model", str(model)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def start(repository, *arguments, **environment):
    """Start the program, with pipes that hold bytes."""
    return subprocess.Popen(
        [sys.executable, "-m", "distillation", "predict", *arguments],
        env={"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("bias", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_no_numbers_are_errors_and_valid_json(bias, run, picture, tmp_path):
    status, out, err = run("a.png", "--json", model=export(tmp_path / "bad.onnx", bias=bias))
    assert status == 1
    (line,) = out.splitlines()
    result = json.loads(line, parse_constant=pytest.fail)
    assert set(result) == {"path", "error"}
    assert result["error"].startswith("a.png: the model's outputs for it are not finite (NaN or ")
    assert err == f"error: {result['error']}\n"


def test_a_reader_that_has_enough_ends_it_quietly(repository, model_path, picture, tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(300):
        (tmp_path / "many" / f"{number}.png").symlink_to(picture)
    with start(repository, "many", "--model", str(model_path)) as process:
        assert process.stdout.readline().startswith(b"many/0.png: ")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 141


def test_names_reach_no_terminal_and_come_back_from_json(run, picture, tmp_path):
    names = ["\x1b]0;title\x07.png", "new\nline.png", "c1\x9b31m.png", "b\u202egnp.png"]
    raw = b"k\xf6ter\x1b.png"
    folder = tmp_path / "red\x1b[31m"
    folder.mkdir()
    for name in (*names, os.fsdecode(raw)):
        (folder / name).symlink_to(picture)
    (folder / "no image.png").write_bytes(b"x")
    for options in ((), ("--json",)):
        status, out, err = run(folder.name, "a.png", *options)
        assert status == 1
        shown = out + err
        assert not any(letter in shown for letter in "\x1b\x07\x9b\u202e")
        assert not any("\ud800" <= letter <= "\udfff" for letter in shown)
        assert len(err.splitlines()) == 5
    found = {json.loads(line)["path"] for line in out.splitlines()}
    expected = {f"{folder.name}/{name}" for name in (*names, os.fsdecode(raw), "no image.png")}
    assert found == {*expected, "a.png"}
    assert r"error: red\x1b[31m/k\xf6ter\x1b.png has a name that is not UTF-8" in err
    assert r"error: red\x1b[31m/no image.png is not an image" in err


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["lines", "json"])
def test_every_encoding_of_the_terminal(
    encoding, options, repository, model_path, picture, tmp_path
):
    (tmp_path / "größe.png").symlink_to(picture)
    arguments = ("größe.png", "--model", str(model_path), *options)
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}
    with start(repository, *arguments, **environment) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    if options:
        assert json.loads(out)["path"] == "größe.png"
    else:
        assert out.startswith("größe.png: ".encode(encoding, "backslashreplace"))


def test_paths_that_no_system_takes(run, picture, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    status, out, err = run("x" * 300, "loop", "a.png/b.png", "a.png")
    assert status == 1
    assert out.startswith("a.png: ")
    messages = [line.rpartition(": ")[2] for line in err.splitlines()]
    assert messages == [
        "File name too long", "Too many levels of symbolic links", "Not a directory"
    ]  # fmt: skip


def test_a_file_of_gigabytes_is_not_read(run, picture, tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(8 * 2**30)
    status, _, err = run("large.png")
    assert status == 1
    assert err == (
        f"error: large.png has 8,589,934,592 bytes; allowed: at most {MAX_FILE_BYTES:,}\n"
    )


def test_folders_too_deep_for_a_path(run, picture, tmp_path):
    (tmp_path / "deep").mkdir()
    here = Path.cwd()
    try:
        os.chdir(tmp_path / "deep")
        for _ in range(30):
            name = "d" * 200
            Path(name).mkdir()
            os.chdir(name)
    finally:
        os.chdir(here)
    status, out, err = run("deep", "a.png")
    assert status == 1
    assert out.startswith("a.png: ")
    assert err.endswith("cannot be read: File name too long\n")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_a_model_that_is_no_file(kind, run, picture, tmp_path):
    if kind == "folder":
        (tmp_path / kind).mkdir()
    elif kind == "pipe":
        os.mkfifo(tmp_path / kind)
    else:
        (tmp_path / kind).symlink_to("/dev/zero")
    status, out, err = run("a.png", model=tmp_path / kind)
    assert (status, out) == (1, "")
    assert err == (
        f"error: {tmp_path}/{kind}: is a {kind}; allowed: a file that the stage export_student "
        "wrote\n"
    )


def test_many_files_are_not_listed_in_advance(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.png").touch()
    listed = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scan(path))
    paths = predict.list_images([tmp_path])
    assert next(paths) == tmp_path / "a/0.png"
    assert listed == [tmp_path, tmp_path / "a"]
    assert len(list(paths)) == 8
    assert listed == [tmp_path, *(tmp_path / name for name in "abc")]


def test_an_empty_argument_is_not_the_whole_folder(run, picture, capsys):
    with pytest.raises(SystemExit) as stop:
        run("", "a.png")
    assert stop.value.code == 2
    assert "IMAGE: got ''; allowed: the path of an image or a folder" in capsys.readouterr().err
