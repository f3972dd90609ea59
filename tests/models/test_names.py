"""Names of models."""

import json

import huggingface_hub.constants
import pytest

from distillation.models.names import ModelError, check_model_name, find_architecture
from tests.helpers.tiny_models import create


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("efficientnet_b00", "did you mean efficientnet_b0 or"),
        ("mobilnetv3_small_100", "mobilenetv3_small_100"),
        ("resnet5O", "did you mean resnet50 or"),
        ("qqqqzzzz", "timm.list_models() lists them"),
        ("", "timm.list_models() lists them"),
    ],
)
def test_unknown_names_bring_the_nearest(name, hint):
    with pytest.raises(ModelError) as caught:
        check_model_name(name, key="student")
    message = str(caught.value)
    assert message.startswith(f"student: got {name!r}; allowed: the name of a timm model; ")
    assert hint in message
    with pytest.raises(ModelError, match=r"did you mean|list_models"):
        create(name)


@pytest.mark.parametrize("name", ["test_resnet", "test_resnet.r160_in1k", "efficientnet_b0"])
def test_known_names_pass_with_and_without_a_tag(name):
    check_model_name(name)


def test_an_unknown_tag_is_an_error_of_the_user():
    with pytest.raises(ModelError, match=r"test_resnet\.bogus"):
        create("test_resnet.bogus")


# Folders and repositories


def write_config(folder, content):
    folder.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "config.json").write_text(text, encoding="utf-8")


def test_a_folder_names_its_architecture(tmp_path):
    write_config(
        tmp_path / "model",
        {
            "architecture": "test_resnet",
            "label_names": ["cat", "dog"],
            "model_args": {"stem_stride": 1, "img_size": 3, "drop_rate": 0.5},
            "pretrained_cfg": {
                "tag": "a1",
                "input_size": [3, 48, 48],
                "mean": [0, 0.5, 1],
                "std": [1, 1, 1],
            },
        },
    )
    found = find_architecture(f"local-dir:{tmp_path / 'model'}")
    assert (found.timm_name, found.base_name) == ("test_resnet", "test_resnet")
    info = found.info
    assert (info.architecture, info.stem_stride, info.image_size) == ("test_resnet.a1", 1, 48)
    assert (info.mean, info.std) == ((0.0, 0.5, 1.0), (1.0, 1.0, 1.0))
    assert (info.class_names, info.model_args) == (("cat", "dog"), {"drop_rate": 0.5})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"but there is no file .*config\.json; allowed: a folder with config\.json and"),
        ("{", r"whose config\.json cannot be used \(Expecting .*\); allowed: one as timm's"),
        ("[1]", r"whose config\.json cannot be used \(it is no mapping\)"),
        ({}, r"whose config\.json names no architecture; allowed: one as timm's"),
        ({"architecture": "resnet1"}, r"allowed: the name of a timm model; did you mean"),
        (
            {"architecture": "resnet18", "pretrained_cfg": 3},
            r"cannot be used \(pretrained_cfg is no mapping\)",
        ),
        (
            {"architecture": "resnet18", "mean": 3},
            r"cannot be used \(an entry has the wrong form",
        ),
    ],
)
def test_folders_that_are_no_model(tmp_path, content, problem):
    folder = tmp_path / "model"
    folder.mkdir()
    if content is not None:
        write_config(folder, content)
    with pytest.raises(ModelError, match=problem) as caught:
        check_model_name(f"local-dir:{folder}", key="teacher")
    assert str(caught.value).startswith("teacher")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["user/model", "models/student", "gs-hub:a/b", "hf-hub:", "a:b:c"])
def test_what_looks_like_a_path_or_repository_gets_the_two_ways_to_name_one(name):
    message = r"^student: got '.*'; allowed: a timm name, or hf-hub:USER/NAME .* local-dir:FOLDER"
    with pytest.raises(ModelError, match=message):
        check_model_name(name, key="student")


def test_a_repository_that_cannot_be_reached_is_named(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    check_model_name("hf-hub:timm/test_resnet.r160_in1k")
    message = r"^teacher: hf-hub:timm/x cannot be had \(.*\); allowed: .* as teacher_checkpoint$"
    with pytest.raises(ModelError, match=message):
        find_architecture("hf-hub:timm/x", key="teacher")
