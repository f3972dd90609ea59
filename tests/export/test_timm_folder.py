"""What timm makes of the folder is the student, or nothing."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors
import timm
import torch

from distillation.export.errors import ExportError
from distillation.export.student import torch_logits
from distillation.export.timm_folder import (
    changed_strides,
    check_timm_folder,
    load_by_hand,
    load_by_name,
    write_timm_folder,
)
from distillation.models.classifier import save_weights
from distillation.models.info import METADATA_KEY, ModelInfo

NAMES = tuple("zyxwvutsrq")


def noise(count, size=16):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def write(model, directory, size=16):
    return write_timm_folder(model.eval(), directory, class_names=NAMES, image_size=size)


def check(folder, directory, model, size=16):
    images = noise(7, size)
    return check_timm_folder(
        folder, directory, images=images, logits=torch_logits(model, images), classify=torch_logits
    )


def read_config(directory):
    return json.loads((directory / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_100"]
)
def test_a_stem_of_timms_own_loads_by_name_and_predicts_the_same(make_model, tmp_path, name):
    model = make_model(name, seed=3, size=32)
    folder, remarks = check(write(model, tmp_path, 32), tmp_path, model, 32)
    assert (folder.loads_by_name, folder.strides, remarks) == (True, {}, [])
    net = load_by_name(tmp_path).eval()
    assert net.pretrained_cfg["label_names"] == list(NAMES)
    settings = timm.data.resolve_data_config(model=net)
    assert (settings["input_size"], settings["crop_pct"]) == ((3, 32, 32), 1.0)
    assert (settings["interpolation"], settings["crop_mode"]) == ("bicubic", "center")
    images = torch.from_numpy(noise(5, 32)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(settings[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        logits = net((images - mean) / std)
    expected = torch_logits(model, noise(5, 32))
    assert np.abs(logits.numpy() - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_byobnet", "test_nfnet"])
def test_another_stem_fails_in_timm_and_loads_by_hand(make_model, tmp_path, name):
    model = make_model(name, seed=3, size=32, stem_stride=1)
    folder, _ = check(write(model, tmp_path, 32), tmp_path, model, 32)
    assert not folder.loads_by_name
    assert list(folder.strides.values()) == [(1, 1)]
    with pytest.raises(TypeError, match="stem_stride"):
        load_by_name(tmp_path)
    by_hand = load_by_hand(folder, tmp_path)
    assert changed_strides(by_hand, model.net) == {}
    assert json.loads(json.dumps(folder.summary())) == folder.summary()
    config = read_config(tmp_path)
    assert config["model_args"]["stem_stride"] == 1
    info = ModelInfo.from_config(config)
    assert (info.architecture, info.stem_stride, info.image_size) == (name, 1, 32)
    assert (info.class_names, len(info.mean)) == (NAMES, 3)
    # What its name would give otherwise is another model.
    config["model_args"].pop("stem_stride")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ExportError, match=rf"^{name}, loaded from its folder by name: timm and "):
        check(dataclasses.replace(folder, strides={}), tmp_path, model, 32)


def test_an_architecture_that_takes_any_argument_fails_all_the_same(
    make_model, tmp_path, monkeypatch
):
    import timm.models.resnet as resnet

    take = resnet.ResNet.__init__

    def take_anything(self, *arguments, stem_stride=None, **options):
        take(self, *arguments, **options)

    model = make_model(seed=3, stem_stride=1)
    monkeypatch.setattr(resnet.ResNet, "__init__", take_anything)
    folder, _ = check(write(model, tmp_path), tmp_path, model)
    assert not folder.loads_by_name
    with pytest.raises(TypeError, match="stem_stride"):
        load_by_name(tmp_path)


def test_a_folder_that_timm_cannot_load_is_remarked_on_and_loads_by_hand(
    make_model, tmp_path, monkeypatch
):
    from distillation.export import timm_folder

    def refuse(directory):
        raise RuntimeError("no\nway")

    monkeypatch.setattr(timm_folder, "load_by_name", refuse)
    model = make_model(seed=3)
    folder, remarks = check(write(model, tmp_path), tmp_path, model)
    assert not folder.loads_by_name
    assert remarks == [
        "timm cannot load the folder by its name (no): load model.safetensors as the card shows."
    ]


def test_other_weights_or_another_normalisation_are_not_kept(make_model, tmp_path):
    model = make_model(seed=3)
    folder = write(model, tmp_path)
    with pytest.raises(ExportError, match=r"timm and PyTorch disagree on \d of 7 test images"):
        check(folder, tmp_path, make_model(seed=4))
    config = read_config(tmp_path)
    config["pretrained_cfg"]["mean"] = [0.1, 0.9, 0.4]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ExportError, match="loaded from its folder by name: timm and PyTorch"):
        check(folder, tmp_path, model)


def test_weights_that_do_not_fit_are_named(make_model, tmp_path):
    folder = write(make_model(), tmp_path)
    with pytest.raises(
        ExportError, match=r"^test_vit: model.safetensors does not fit the model that timm builds: "
    ):
        load_by_hand(dataclasses.replace(folder, architecture="test_vit"), tmp_path)


def test_the_same_weights_are_the_same_files(make_model, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(make_model(seed=3), tmp_path / name)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    with safetensors.safe_open(tmp_path / "a" / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert list(metadata) == [METADATA_KEY]
    assert ModelInfo.from_metadata(metadata).class_names == NAMES


@pytest.mark.parametrize(("name", "tag"), [("resnet10t.c3_in1k", "c3_in1k"), ("resnet10t", None)])
def test_what_timm_tells_of_its_own_weights_is_left_out(make_model, tmp_path, name, tag):
    model = make_model("resnet10t")
    if tag is not None:
        save_weights(model, tmp_path / "trained.safetensors", class_names=NAMES)
        model = make_model(name, checkpoint=tmp_path / "trained.safetensors")
    write(model, tmp_path)
    published = read_config(tmp_path)["pretrained_cfg"]
    assert published.get("tag") == tag
    assert not {"license", "origin_url", "paper_ids", "url", "hf_hub_id"} & set(published)
