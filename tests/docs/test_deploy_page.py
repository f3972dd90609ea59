"""The lines of docs/deploy.md work as they stand."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from distillation.base.checksums import hash_file
from distillation.export.onnx_file import export_onnx
from distillation.export.sessions import load_exported
from distillation.models.creation import create_classifier
from distillation.sources.decode import read_image
from tests.helpers.sealed import flip_bit


@pytest.fixture
def page(repository):
    return (repository / "docs" / "deploy.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_lines_say_what_predict_says(page, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "models" / "student" / "student.onnx"
    path.parent.mkdir(parents=True)
    model = create_classifier("test_resnet", num_classes=3, image_size=16, seed=1)
    metadata = {"class_names": '["ant", "bee", "cow"]', "image_size": "16"}
    export_onnx(model, path, image_size=16, metadata=metadata)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", format="png")  # half transparent
    code += "print(pixels.tobytes().hex())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    image = read_image(tmp_path / "photo.jpg", 16)
    (logits,) = load_exported(path).predict_logits(image[None])
    assert done.stdout.split() == [
        ("ant", "bee", "cow")[int(logits.argmax())],
        image.tobytes().hex(),
    ]
    assert done.stderr == ""


def test_the_lines_that_check_by_hand(page, tmp_path):
    (code,) = re.findall(r"```sh\n(sed .*?)```", page, re.DOTALL)
    folder = tmp_path / "models" / "student"
    folder.mkdir(parents=True)
    path = folder / "student.onnx"
    model = create_classifier("test_resnet", num_classes=3, image_size=16, seed=1)
    export_onnx(model, path, image_size=16, metadata={}, is_shipped=False)
    (folder / "README.md").write_text(f"# x\n\n```\n{hash_file(path)}  student.onnx\n```\n")

    def check():
        done = subprocess.run(["sh", "-c", code], cwd=tmp_path, capture_output=True, text=True)
        return done.stdout.splitlines()

    assert check() == ["student.onnx: OK", "fits"]
    flip_bit(path, path.stat().st_size // 2, 3)
    assert check() == ["student.onnx: FAILED", "is damaged"]


def test_numbers_are_those_of_the_code(page):
    from distillation.export import agreement, onnx_file, quantization, student, timing

    said = [
        f"(opset {onnx_file.OPSET})",
        f"on {quantization.NUM_CALIBRATION_IMAGES} training images",
        f"at least {timing.MIN_ROUNDS} rounds, at most {timing.MAX_ROUNDS},",
        f"after {timing.LIMIT_SECONDS:.0f} seconds",
        "10⁻⁴ of the largest",
    ]
    text = " ".join(page.split())  # wherever its lines end
    assert [words for words in said if words not in text] == []
    assert agreement.TOLERANCE == 1e-4
    assert student.NOTABLE_LOSS_POINTS == 1.0
