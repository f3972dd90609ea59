"""The installed command `distillation`, away from the repository."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from distillation.base.params import load_params
from distillation.export.onnx_file import export_onnx
from distillation.models.creation import create_classifier
from tests.conftest import TINY

pytestmark = pytest.mark.slow

PACKED = ("LICENSE", "README.md", "distillation", "params.yaml", "pyproject.toml", "stages")


@pytest.fixture(scope="module")
def installed(repository, tmp_path_factory):
    """Return a folder into which the project's wheel was installed."""
    root = tmp_path_factory.mktemp("installed")
    source, packages = root / "source", root / "packages"
    source.mkdir()
    # A build leaves files beside what it packs.
    subprocess.run(["cp", "-a", *[repository / name for name in PACKED], source], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(root), str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = root.glob("*.whl")
    install = ["install", "--no-deps", "--no-index", "--target", str(packages), str(wheel)]
    subprocess.run([*pip, *install], check=True)
    return packages


@pytest.fixture
def distillation(installed, tmp_path):
    """Run the installed command in a folder with nothing in it; returns what it printed."""

    def run(*arguments):
        done = subprocess.run(
            [installed / "bin" / "distillation", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_it_predicts(distillation, tmp_path):
    model = create_classifier("test_resnet", num_classes=2, image_size=16, seed=1)
    metadata = {"class_names": json.dumps(["ant", "bee"]), "image_size": "16"}
    export_onnx(model, tmp_path / "tiny.onnx", image_size=16, metadata=metadata)
    Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (line,) = distillation("predict", "a.png", "--model", "tiny.onnx", "--json").splitlines()
    assert json.loads(line)["class"] in ("ant", "bee")


def test_it_trains_with_the_packaged_parameters_and_compares(distillation, repository, tmp_path):
    changed = {**TINY, "epochs": 1}
    options = [
        text
        for name, value in changed.items()
        for text in (f"--{name.replace('_', '-')}", json.dumps(value).strip('"'))
    ]
    printed = distillation("--experiment", "1", "--run-dir", "run", *options)
    assert "No params.yaml in this folder: parameters left out are those of the package." in printed
    used = load_params(tmp_path / "run" / "params.yaml")
    assert used == load_params(repository / "params.yaml", **changed)
    table = distillation("compare", "run/metrics", "--format", "csv")
    assert {line.split(",")[0] for line in table.splitlines()[1:]} == {"exp1"}


def test_a_parameter_file_in_the_folder_comes_first(distillation, committed_values, tmp_path):
    text = yaml.safe_dump({**committed_values, "alpha": 0.123})
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert "(default: 0.123)" in " ".join(distillation("--help").split())
