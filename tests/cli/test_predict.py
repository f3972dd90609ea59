"""`python -m distillation predict`: what it prints, what it imports, how it ends."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distillation.cli import predict
from distillation.export.onnx_file import export_onnx, set_metadata
from distillation.export.sessions import load_exported
from distillation.models.creation import create_classifier
from distillation.sources.decode import read_image
from distillation.sources.walk import walk_folder

CLASSES = ("ant", "bee", "köter")
SIZE = 16


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """Give an exported tiny model of three classes."""
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    model = create_classifier("test_resnet", num_classes=3, image_size=SIZE, seed=1)
    metadata = {"class_names": json.dumps(CLASSES), "image_size": str(SIZE)}
    export_onnx(model, path, image_size=SIZE, metadata=metadata)
    return path


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Give a working directory with three images, two in a folder, and files that are none."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for seed, path in enumerate(["a.png", "photos/b.jpg", "photos/deep/c.webp"]):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / path)
    (folder / ".hidden" / "x.png").write_bytes(b"hidden")
    (folder / "Thumbs.db").write_bytes(b"junk")
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.fixture
def run(model_path, capsys):
    def call(*arguments):
        status = predict.main([*arguments, "--model", str(model_path)])
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return call


def test_a_line_names_the_classes_by_probability(run, images):
    status, out, err = run("a.png")
    assert (status, err) == (0, [])
    (line,) = out
    path, _, rest = line.partition(": ")
    named = [part.rsplit(" ", 2)[0] for part in rest.split(", ")]
    shares = [float(part.split()[-2]) for part in rest.split(", ")]
    assert path == "a.png"
    assert sorted(named) == sorted(CLASSES)
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_json_is_the_softmax_of_the_models_logits(run, images, model_path):
    status, out, _ = run("a.png", "photos", "--json")
    results = [json.loads(line) for line in out]
    assert status == 0
    assert [one["path"] for one in results] == ["a.png", "photos/b.jpg", "photos/deep/c.webp"]
    for one in results:
        image = read_image(images / one["path"], SIZE)
        (logits,) = load_exported(model_path).predict_logits(image[None])
        expected = np.exp(logits) / np.exp(logits).sum()
        found = {entry["class"]: entry["probability"] for entry in one["top"]}
        assert [found[name] for name in CLASSES] == pytest.approx(expected, abs=2e-6)
        assert one["class"] == CLASSES[int(logits.argmax())] == one["top"][0]["class"]
        assert one["probability"] == one["top"][0]["probability"] == max(found.values())


def test_batches_change_nothing(run, images, monkeypatch):
    paths = ["a.png", "notes.txt", "photos/b.jpg", "photos/deep/c.webp"]
    together = run(*paths, "--json")
    monkeypatch.setattr(predict, "_BATCH_SIZE", 1)
    one_by_one = run(*paths, "--json")
    assert together == one_by_one


def test_top_says_how_many_classes(run, images):
    assert [len(json.loads(run("a.png", "--json", "--top", n)[1][0])["top"]) for n in "129"] == [
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
def test_a_wrong_top_is_a_wrong_usage(value, run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("a.png", "--top", value)
    assert stop.value.code == 2
    assert f"--top: got '{value}'; allowed: a whole number at least 1" in capsys.readouterr().err


def test_what_is_no_image_gets_a_message_and_the_others_go_on(run, images):
    status, out, err = run("notes.txt", "a.png", "gone.png", "empty")
    assert status == 1
    assert [line.partition(":")[0] for line in out] == ["a.png"]
    assert len(err) == 3
    assert err[0].startswith("error: notes.txt is not an image that can be read; allowed: JPEG")
    assert err[1] == "error: gone.png cannot be read: No such file or directory"
    assert err[2] == "error: empty holds no files; allowed: a folder of images"


def test_a_folder_is_walked_as_training_walks(run, images):
    """Left out is the same, links are followed, and what cannot be read is an error."""
    photos = images / "photos"
    for name in ("@eaDir", "$RECYCLE.BIN", ".ipynb_checkpoints", "THUMBS.DB"):
        (photos / name).mkdir()
        (photos / name / "x.png").write_bytes(b"junk")
    (photos / "a link").symlink_to(images / "a.png")
    (photos / "deep" / "up").symlink_to(photos)
    (photos / "gone.png").symlink_to(images / "nowhere.png")
    os.mkfifo(photos / "pipe.png")
    Path(os.fsdecode(os.fsencode(photos) + b"/k\xf6ter.png")).write_bytes(b"x")
    (photos / "new\nline.png").write_bytes(b"x")

    status, out, err = run("photos", "--json")
    assert status == 1
    results = [json.loads(line) for line in out]
    assert [one["path"] for one in results if "error" not in one] == [
        "photos/a link", "photos/b.jpg", "photos/deep/c.webp"
    ]  # fmt: skip
    assert [one["error"] for one in results if "error" in one] == [
        "photos/deep/up is a link to a folder that it lies in itself",
        "photos/gone.png cannot be read: No such file or directory (a link to "
        f"{images}/nowhere.png)",
        r"photos/k\xf6ter.png has a name that is not UTF-8; rename it",
        r"photos/new\nline.png has a control character in its name; rename it",
        "photos/pipe.png is a pipe; allowed: files and folders",
    ]
    assert err == [f"error: {one['error']}" for one in results if "error" in one]
    for one in results:
        if "error" not in one:
            assert (photos.parent / one["path"]).is_file()
    files = walk_folder(photos)
    assert files.files == [
        one["path"].removeprefix("photos/") for one in results if "error" not in one
    ]


def test_a_pipe_is_not_opened(run, images):
    os.mkfifo(images / "pipe")
    status, out, err = run("pipe")
    assert (status, out) == (1, [])
    assert err == ["error: pipe is a pipe; allowed: files"]


def test_a_folder_that_is_a_broken_link_or_has_nothing_to_see_is_an_error(run, images):
    (images / "photos 2").symlink_to(images / "nowhere")
    (images / "hidden" / ".git").mkdir(parents=True)
    (images / "hidden" / ".git" / "x.png").write_bytes(b"x")
    status, out, err = run("photos 2", "hidden")
    assert (status, out) == (1, [])
    assert err == [
        "error: photos 2 cannot be read: No such file or directory",
        "error: hidden holds no files; allowed: a folder of images",
    ]


def test_errors_are_objects_among_the_others(run, images):
    status, out, err = run("a.png", "notes.txt", "photos", "--json")
    results = [json.loads(line) for line in out]
    assert status == 1
    assert ["error" in one for one in results] == [False, True, False, False]
    assert set(results[1]) == {"path", "error"}
    assert results[1]["path"] == "notes.txt"
    assert len(err) == 1


def test_a_missing_model_says_which_command_makes_it(images, capsys):
    assert predict.main(["a.png"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "error: models/student/student.onnx: no such file, nor student-int8.onnx beside it; `dvc "
        "repro export_student` makes both, and --model names a file elsewhere\n"
    )


def test_without_a_name_it_takes_the_best_file_there_is_and_says_which(images, model_path, capsys):
    folder = images / "models" / "student"
    folder.mkdir(parents=True)
    small, full = folder / "student-int8.onnx", folder / "student.onnx"
    shutil.copy(model_path, small)
    full.symlink_to("a cache that is gone")
    assert predict.main(["a.png"]) == 0
    assert capsys.readouterr().err == (
        "model: models/student/student-int8.onnx (student.onnx is not here: `dvc pull` brings it, "
        "`dvc repro` makes it)\n"
    )
    full.unlink()
    shutil.copy(model_path, full)
    assert predict.main(["a.png"]) == 0
    assert capsys.readouterr().err == "model: models/student/student.onnx\n"
    full.write_bytes(b"damaged")
    assert predict.main(["a.png"]) == 1
    assert "error: models/student/student.onnx: damaged" in capsys.readouterr().err


def test_a_file_of_another_commit_is_not_taken(images, model_path, capsys):
    """`git pull` brings the small file alone; the other is what `dvc checkout` left before."""
    folder = images / "models" / "student"
    folder.mkdir(parents=True)
    about = load_exported(model_path).metadata
    for name, weights in (("student.onnx", "old"), ("student-int8.onnx", "new")):
        shutil.copy(model_path, folder / name)
        set_metadata(folder / name, {**about, "weights_fingerprint": weights})
    assert predict.main(["a.png"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: models/student/student.onnx: holds other weights than student-int8.onnx" in (
        captured.err
    )
    assert predict.main(["a.png", "--model", "models/student/student.onnx"]) == 0
    (folder / "student-int8.onnx").write_bytes(b"damaged")
    assert predict.main(["a.png"]) == 0


@pytest.mark.parametrize("content", [b"", b"no ONNX file"])
def test_a_damaged_model_is_named(content, images, capsys):
    (images / "bad.onnx").write_bytes(content)
    assert predict.main(["a.png", "--model", "bad.onnx"]) == 1
    assert capsys.readouterr().err.startswith("error: bad.onnx: ")


def test_it_starts_quickly_and_without_torch(images, model_path, repository):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['distillation', 'predict', 'a.png', '--model', {str(model_path)!r}]\n"
        "try:\n"
        "    runpy.run_module('distillation', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    print(stop.code)\n"
        "heavy = ('torch', 'torchvision', 'timm', 'sklearn', 'pandas', 'scipy', 'onnx', 'dvc')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "import resource\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(used.ru_utime + used.ru_stime)\n"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    line, status, heavy, cpu_seconds = done.stdout.splitlines()
    assert line.startswith("a.png: "), done.stderr
    assert (status, heavy) == ("0", "[]")
    # Of the processor's time, since a busy machine takes longer by the clock.
    assert min(seconds, float(cpu_seconds)) < 1.0
