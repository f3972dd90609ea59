"""The lines of the card load the student, as they stand."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distillation.export.card import make_card
from distillation.export.student import torch_logits
from distillation.export.timm_folder import check_timm_folder, write_timm_folder
from distillation.sources.decode import read_image

TEACHER = {"model": "test_efficientnet", "acc": 90.0, "trained": True}


def code_of(card):
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return code


def run(code, directory, images, monkeypatch):
    """Run a card's lines on a picture, and the model they leave on all images."""
    monkeypatch.chdir(directory)
    picture = Image.fromarray(images[0]).resize((50, 40))
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save("photo.jpg", format="png")
    values = {}
    exec(compile(code, "card", "exec"), values)
    seen = values["transform"](Image.fromarray(read_image(Path("photo.jpg"), images.shape[1])))
    assert torch.allclose(values["photo"], seen, atol=0.02)
    batch = torch.stack([values["transform"](Image.fromarray(image)) for image in images])
    with torch.inference_mode():
        return values["model"](batch).numpy()


def make(exported, digits, deploy):
    return make_card(
        deploy,
        selection=exported.selection,
        methods=exported.methods,
        teacher=TEACHER,
        data=digits,
        environments={},
    )


def test_by_name_it_has_the_accuracy_of_the_table(exported, digits, tmp_path, monkeypatch, capsys):
    code = code_of(make(exported, digits, exported.deploy))
    assert 'create_model("local-dir:.", pretrained=True)' in code
    shutil.copytree(exported.directory, tmp_path / "student")
    test = digits.test
    logits = run(code, tmp_path / "student", test.images, monkeypatch)
    expected = torch_logits(exported.student, test.images)
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()
    accuracy = 100 * (logits.argmax(axis=1) == test.labels).mean()
    assert accuracy == pytest.approx(exported.deploy["models"]["student"]["acc"], abs=1e-4)
    assert capsys.readouterr().out.strip() in digits.class_names


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "test_efficientnet"])
def test_with_another_stem_it_is_loaded_by_hand(
    exported, digits, make_model, tmp_path, monkeypatch, capsys, name
):
    model = make_model(name, seed=3, stem_stride=1).eval()
    images = np.asarray(digits.test.images)
    expected = torch_logits(model, images)
    folder = write_timm_folder(model, tmp_path, class_names=digits.class_names, image_size=16)
    folder, _ = check_timm_folder(
        folder, tmp_path, images=images, logits=expected, classify=torch_logits
    )
    card = make(exported, digits, {**exported.deploy, "timm": folder.summary()})
    assert "The student's first convolution (`conv_stem`) has stride 1, which is not" in card
    code = code_of(card)
    assert 'model.get_submodule("conv_stem").stride = (1, 1)' in code
    logits = run(code, tmp_path, images, monkeypatch)
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert capsys.readouterr().out.strip() in digits.class_names


def test_a_folder_without_a_name_is_said_to_be_one(exported, digits):
    timm_folder = {**exported.deploy["timm"], "loads_by_name": False}
    card = make(exported, digits, {**exported.deploy, "timm": timm_folder})
    assert "timm cannot load the folder by its name. In this folder:" in card
    assert 'timm.create_model("test_resnet", num_classes=10' in code_of(card)
