"""What somebody else has of the student: from git alone, by its name, from a remote."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from distillation.base.checksums import hash_file
from tests.helpers.work_tree import WorkTree

IN_GIT = {"README.md", "config.json", "student-int8.onnx"}
WHOLE = {*IN_GIT, "model.safetensors", "student.onnx"}

# `python -m distillation` where nothing is installed that training needs.
ALONE = """
import runpy, sys
for name in ("torch", "torchvision", "timm", "onnx", "dvc", "pydantic", "scipy", "sklearn"):
    sys.modules[name] = None
sys.argv = ["distillation", *sys.argv[1:]]
runpy.run_module("distillation", run_name="__main__")
"""


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def clone(pipeline, tmp_path):
    """Return a clone by a git that would write other line ends."""
    pipeline.run(
        "git", "clone", "-q", "-c", "core.autocrlf=true", str(pipeline.root), str(tmp_path / "it")
    )
    return WorkTree(tmp_path / "it")


def test_a_fresh_clone_predicts_with_nothing_else(pipeline, clone):
    student = clone.root / "models" / "student"
    assert names(student) == IN_GIT
    for name in IN_GIT:
        assert (student / name).read_bytes() == (
            pipeline.root / "models" / "student" / name
        ).read_bytes()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(clone.root / "photo.jpg")
    said, printed = clone.run(
        sys.executable, "-c", ALONE, "predict", "photo.jpg", "--json"
    ).splitlines()
    assert said.startswith("model: models/student/student-int8.onnx (student.onnx is not here")
    result = json.loads(printed)
    assert [one["class"] for one in result["top"]] != []
    assert {one["class"] for one in result["top"]} <= {str(digit) for digit in range(10)}
    assert clone.status() == "?? photo.jpg\n"


def test_a_clone_gets_the_student_by_name_and_has_nothing_to_do(pipeline, tmp_path):
    owner = pipeline.copy(tmp_path / "owner")
    owner.dvc("remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    owner.commit("remote")
    owner.dvc("push", "-q")
    owner.run("git", "tag", "-a", "student@v1.0.0", "-m", "the first")

    away = WorkTree(tmp_path)
    away.dvc("artifacts", "get", "-q", str(owner.root), "student")
    away.dvc("get", "-q", str(owner.root), "models/student", "-o", "got")
    assert names(tmp_path / "student") == names(tmp_path / "got") == WHOLE
    card = (tmp_path / "got" / "README.md").read_text(encoding="utf-8")
    sums = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", card, re.MULTILINE))
    assert sums == {hash_file(tmp_path / "student" / name): name for name in sums.values()}
    assert len(sums) == 3

    away.run("git", "clone", "-q", str(owner.root), "clone")
    clone = WorkTree(tmp_path / "clone")
    clone.dvc("pull", "-q", "--allow-missing")
    assert names(clone.root / "models" / "student") == WHOLE
    assert "up to date" in clone.dvc("repro", "--allow-missing")
    assert clone.status() == ""
