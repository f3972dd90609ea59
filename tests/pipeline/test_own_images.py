"""The page about one's own images is followed, with a folder of mixed pictures."""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from distillation.base.methods import DEFAULT_METHODS
from distillation.base.params import load_params
from distillation.base.workspace import Workspace
from distillation.cli.pipeline import run_pipeline
from distillation.cli.train import main as cli_main
from stages import export_student, summarize
from tests.helpers.work_tree import stages_in

CLASSES = ["Bär & Söhne", "cat", "<i>dog"]
SIZES = [(40, 40), (300, 30), (31, 280), (160, 120)]


def draw(seed, size):
    """Give a picture of a few coarse blocks."""
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def save_in_turn(picture, number, path):
    """Save a picture in one of the modes and formats that users' folders hold."""
    rotated = Image.Exif()
    rotated[0x0112] = 6
    transparent = picture.convert("RGBA")
    transparent.putalpha(picture.convert("L"))
    grey16 = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    kinds = [
        (picture, "JPG", {}),
        (picture, "jpeg", {"exif": rotated}),
        (picture.convert("CMYK"), "jpg", {}),
        (picture.convert("L"), "png", {}),
        (picture.convert("1"), "PNG", {}),
        (picture.convert("P"), "gif", {}),
        (picture.convert("P"), "png", {"transparency": 1}),
        (transparent, "webp", {}),
        (transparent.convert("LA"), "png", {}),
        (grey16, "png", {}),
        (picture, "bmp", {}),
        (picture, "tiff", {}),
    ]
    image, ending, options = kinds[number % len(kinds)]
    image.save(path / f"{number:02} {image.mode.replace(';', '')}.{ending}", **options)


@pytest.fixture
def pets(tmp_path):
    """Give a folder as a user has it: nested, hidden files, names that are no identifiers."""
    folder = tmp_path / "my pets"
    for index, name in enumerate(CLASSES):
        nested = folder / name / "2024 summer"
        nested.mkdir(parents=True)
        for number in range(14):
            where = nested if number % 3 else folder / name
            picture = draw(100 * index + number, SIZES[number % len(SIZES)])
            save_in_turn(picture, number, where)
        (folder / name / ".DS_Store").write_bytes(b"x")
        (nested / "Thumbs.db").write_bytes(b"x")
    return folder


@pytest.mark.full
def test_the_page_works_as_it_stands(fresh_work_tree, repository, pets, tmp_path, monkeypatch):
    """But that all stages after the first run in this process, and so does the command line."""
    work_tree = fresh_work_tree.copy(tmp_path / "work")
    page = (repository / "docs" / "own-images.md").read_text(encoding="utf-8")
    blocks = [
        code.replace("/path/to/pets", f"'{pets}'")
        for code in re.findall(r"^```sh\n([^`]*)```", page, re.MULTILINE)
    ]
    look, run, alone, predict, again = blocks

    printed = work_tree.run("bash", "-ec", look)
    assert "image folder my pets: 3 classes, 30 training images" in printed
    assert "WARNING: test has 9 images: each is worth 11.1 points" in printed
    data = work_tree.metrics("data")
    assert data["counts"]["test"] == dict.fromkeys(sorted(CLASSES), 3)
    assert data["image_endings"] == [
        ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tiff", ".webp",
    ]  # fmt: skip

    # What `-S` said stands in the file, and DVC knows that the first stage has run.
    assert "up to date" in work_tree.dvc("repro", "prepare_data")
    run_stages_here(work_tree.root)
    work_tree.dvc("commit", "--force")
    printed = work_tree.run("bash", "-ec", run)
    assert stages_in(printed) == []
    assert "Data: image folder my pets." in printed
    assert work_tree.metrics("exp1")["data"] == "image folder my pets"
    for warning in ("Traceback", "Warning"):
        assert warning not in printed

    monkeypatch.chdir(work_tree.root)
    python, _, module, *arguments = shlex.split(alone.replace("\\\n", ""))
    assert (python, module) == ("python", "distillation")
    assert cli_main([*arguments, "--device", "cpu"]) == 0
    results = json.loads((work_tree.root / "results.json").read_text(encoding="utf-8"))
    assert list(results["methods"]) == ["control", "exp1"]

    model, *lines = work_tree.run("bash", "-ec", predict).splitlines()
    assert model == "model: models/student/student.onnx"
    assert len(lines) == 14
    for line in lines:
        assert line.startswith(f"{pets}/cat/")
        assert all(name in line for name in CLASSES)

    prepare, repro = again.splitlines()
    draw(1, (50, 50)).save(pets / "cat" / "another.png")
    assert "up to date" in work_tree.run("bash", "-ec", repro)
    printed = work_tree.run("bash", "-ec", prepare)
    assert "image folder my pets: 3 classes, 31 training images" in printed
    assert work_tree.metrics("data")["sha256"] != data["sha256"]
    trained = {"train_teacher", "train_control", "distill_exp1", "distill_exp2", "distill_exp3"}
    assert trained <= set(stages_in(work_tree.run("bash", "-ec", f"{repro} --dry")))


def run_stages_here(root):
    params = load_params(root / "params.yaml")
    workspace = Workspace(root=root, scratch=None, device_name="cpu")
    run_pipeline(params, workspace, DEFAULT_METHODS)
    export_student.main(params, workspace)
    summarize.main(params, workspace)
