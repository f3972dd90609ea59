"""The page about one's own images is followed, with a folder of mixed pictures."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

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


@pytest.fixture
def workspace(fresh_workspace, tmp_path):
    root = tmp_path / "work"
    shutil.copytree(fresh_workspace.root, root, symlinks=True)
    return type(fresh_workspace)(root, fresh_workspace.traces, tmp_path / "no hook")


def test_the_page_works_as_it_stands(workspace, repository, pets):
    page = (repository / "docs" / "own-images.md").read_text(encoding="utf-8")
    blocks = [
        code.replace("/path/to/pets", f"'{pets}'")
        for code in re.findall(r"^```sh\n([^`]*)```", page, re.MULTILINE)
    ]
    look, run, alone, predict, again = blocks

    printed = workspace.run("bash", "-ec", look)
    assert "image folder my pets: 3 classes, 30 training images" in printed
    assert "WARNING: test has 9 images: each is worth 11.1 points" in printed
    data = workspace.metrics("data")
    assert data["counts"]["test"] == dict.fromkeys(sorted(CLASSES), 3)
    assert data["image_endings"] == [
        ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tiff", ".webp",
    ]  # fmt: skip

    printed = workspace.run("bash", "-ec", run)
    assert "Running stage 'prepare_data'" not in printed
    assert "Data: image folder my pets." in printed
    assert workspace.metrics("exp1")["data"] == "image folder my pets"
    for warning in ("Traceback", "Warning"):
        assert warning not in printed

    workspace.run("bash", "-ec", alone.replace("--results", "--device cpu --results"))
    results = json.loads((workspace.root / "results.json").read_text(encoding="utf-8"))
    assert list(results["methods"]) == ["control", "exp1"]

    lines = workspace.run("bash", "-ec", predict).splitlines()
    assert len(lines) == 14
    for line in lines:
        assert line.startswith(f"{pets}/cat/")
        assert all(name in line for name in CLASSES)

    draw(1, (50, 50)).save(pets / "cat" / "another.png")
    assert "up to date" in workspace.dvc("repro", "train_control")
    # One student is enough to see that what depends on the data is trained again.
    prepare, repro = again.splitlines()
    assert repro == "dvc repro"
    printed = workspace.run("bash", "-ec", f"{prepare}\n{repro} train_control")
    assert "image folder my pets: 3 classes, 31 training images" in printed
    assert "Running stage 'train_control'" in printed
    assert workspace.metrics("data")["sha256"] != data["sha256"]
    assert "up to date" in workspace.dvc("repro", "train_control")
