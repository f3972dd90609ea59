"""Classifiers: their input and outputs, their fingerprint, their weights on disk."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import timm
import torch
from torch import nn

from distillation.models.classifier import Classifier, fingerprint_model, freeze, save_weights
from distillation.models.info import ModelInfo
from tests.helpers.tiny_models import (
    CLASS_NAMES,
    NAMES,
    NUM_CLASSES,
    create,
    make_images,
    states_equal,
    weights_of,
)

# Input and outputs


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_its_own_normalisation(name):
    model = create(name).eval()
    config = model.net.pretrained_cfg
    assert model.mean.flatten().tolist() == pytest.approx(config["mean"])
    assert model.std.flatten().tolist() == pytest.approx(config["std"])
    images = make_images()
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    by_hand = model.net((images.to(torch.float32) / 255 - mean) / std)
    assert torch.allclose(model(images), by_hand, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(model(images), model.net(images / 255), rtol=1e-2)


def test_normalisations_differ_and_are_not_saved():
    first, second = create("test_efficientnet"), create("test_resnet")
    assert not torch.equal(first.mean, second.mean)
    assert not {"mean", "std"} & set(first.state_dict())


def test_the_images_are_left_as_they_were():
    images = make_images()
    before = images.clone()
    create().eval()(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", [*NAMES, "mobilenetv3_small_100"])
def test_outputs_agree_with_forward(name):
    model = create(name).eval()
    images = make_images()
    outputs = model.outputs(images)
    assert torch.allclose(outputs.logits, model(images), rtol=1e-5, atol=1e-6)
    raw = model.net.forward_features((images / 255 - model.mean) / model.std)
    if name != "test_vit":
        assert torch.allclose(outputs.features, raw, rtol=1e-4, atol=1e-5)


def test_tokens_become_a_square_map_row_by_row_without_the_class_token():
    model = create("test_vit").eval()
    images = make_images()
    features = model.outputs(images).features
    tokens = model.net.forward_features((images / 255 - model.mean) / model.std)
    assert tokens.shape == (2, 17, 64)
    assert features.shape == (2, 64, 4, 4)
    for row in range(4):
        for column in range(4):
            token = tokens[:, 1 + 4 * row + column]
            assert torch.allclose(features[:, :, row, column], token, rtol=1e-4, atol=1e-5)


class Shaped(nn.Module):
    """A net whose features have a given shape."""

    pretrained_cfg = {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # noqa: RUF012

    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward_features(self, images):
        return torch.arange(float(torch.Size(self.shape).numel())).reshape(self.shape)

    def forward_head(self, features):
        return features.flatten(1)


def test_features_with_channels_last_are_turned():
    net = Shaped(2, 3, 4, 5)
    net.output_fmt = "NHWC"
    outputs = Classifier(net, name="by hand", num_classes=1).outputs(make_images(8))
    assert outputs.features.shape == (2, 5, 3, 4)
    assert outputs.features[1, 4, 2, 3] == 2 * 3 * 4 * 5 - 1
    assert torch.equal(outputs.features.permute(0, 2, 3, 1), net.forward_features(None))


@pytest.mark.parametrize(
    ("name", "size", "shape"),
    [
        ("test_resnet", 64, (96, 2, 2)),
        ("test_efficientnet", 64, (256, 2, 2)),
        ("test_efficientnet", 96, (256, 3, 3)),
        ("test_vit", 64, (64, 4, 4)),
    ],
)
def test_feature_shape_is_that_of_the_last_map(name, size, shape):
    model = create(name, image_size=size)
    assert model.feature_shape(size) == shape
    assert model.outputs(make_images(size)).features.shape[1:] == shape


@pytest.mark.parametrize("mode", [True, False])
def test_asking_for_the_feature_shape_leaves_the_model_as_it_was(mode):
    model = create("test_resnet").train(mode)
    before = weights_of(model)
    generator = torch.get_rng_state()
    model.feature_shape(64)
    assert states_equal(weights_of(model), before)  # running statistics are among them
    assert all(module.training is mode for module in model.modules())
    assert torch.equal(torch.get_rng_state(), generator)


def test_freeze_takes_gradients_and_training_mode():
    model = create().train()
    assert freeze(model) is model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model(make_images()).requires_grad


# The fingerprint of weights


class Tensors(nn.Module):
    """A module that holds given tensors."""

    def __init__(self, **tensors):
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)


def test_the_fingerprint_is_that_of_names_shapes_types_and_values():
    base = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    changed = torch.arange(6.0).reshape(2, 3)
    changed[1, 2] = torch.nextafter(changed[1, 2], torch.tensor(9.0))
    others = [
        {**base, "a": changed},  # by the last bit
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "a": base["a"].view(torch.int32)},  # the same bytes
        {**base, "b": torch.tensor(4)},
        {**base, "b": torch.tensor([3])},
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"]},
        {**base, "c": torch.zeros(0)},
        {},
    ]
    found = [fingerprint_model(Tensors(**tensors)) for tensors in (base, *others)]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in found)
    assert fingerprint_model(Tensors(**base)) == found[0]


def test_the_fingerprint_is_of_values_wherever_they_lie_in_memory():
    values = torch.arange(120.0).reshape(2, 3, 4, 5)
    turned = values.contiguous(memory_format=torch.channels_last)
    assert turned.stride() != values.stride()
    first, second = Tensors(a=values), Tensors(a=turned)
    assert fingerprint_model(first) == fingerprint_model(second)
    half = Tensors(a=values.bfloat16())
    assert fingerprint_model(half) != fingerprint_model(first)


def test_the_fingerprint_is_that_of_the_normalisation_and_the_models_arguments_too():
    def fingerprint(**info):
        net = timm.create_model("test_resnet", num_classes=3)
        net.load_state_dict(first.state_dict())
        info = ModelInfo(architecture="test_resnet", **info)
        return fingerprint_model(Classifier(net, name="test_resnet", num_classes=3, info=info))

    first = timm.create_model("test_resnet", num_classes=3)
    others = [{}, {"mean": (0.1, 0.2, 0.3)}, {"std": (0.1, 0.2, 0.3)}, {"model_args": {"a": 1}}]
    found = [fingerprint(**info) for info in others]
    assert len(set(found)) == len(found)
    assert fingerprint() == found[0]


def test_the_fingerprint_of_a_model_outlives_its_file_and_changes_with_its_statistics(saved):
    model = create("test_efficientnet", seed=4, checkpoint=saved)
    again = create("test_efficientnet", seed=5, checkpoint=saved)
    first = fingerprint_model(model)
    assert fingerprint_model(again) == first
    assert fingerprint_model(freeze(again)) == first
    model.train()(make_images(count=4))  # moves running means alone
    assert fingerprint_model(model) != first


# Weights on disk


def test_a_round_trip_is_exact(trained, saved):
    fresh = create("test_efficientnet", seed=4)
    names = [name for name in weights_of(fresh) if "running_" in name]
    assert names
    assert not any(torch.equal(weights_of(fresh)[n], weights_of(trained)[n]) for n in names)
    loaded = create("test_efficientnet", seed=4, checkpoint=saved).eval()
    assert states_equal(weights_of(loaded), weights_of(trained))
    assert torch.equal(loaded(make_images()), trained(make_images()))


def test_the_file_is_a_plain_timm_state_dict_with_its_origin(trained, saved):
    assert states_equal(safetensors.torch.load_file(saved), weights_of(trained))
    with safetensors.safe_open(saved, framework="pt") as file:
        (about,) = file.metadata().values()
    config = trained.net.pretrained_cfg
    values = json.loads(about)
    assert re.fullmatch("[0-9a-f]{64}", values.pop("sha256"))
    assert values == {
        "architecture": "test_efficientnet",
        "stem_stride": "own",
        "image_size": 64,
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "class_names": ["a", "b", "c", "d", "ü"],
    }
    with safetensors.safe_open(saved, framework="pt") as file:
        info = ModelInfo.from_metadata(file.metadata())
    assert info == dataclasses.replace(trained.info, class_names=CLASS_NAMES)
    plain = timm.create_model("test_efficientnet", num_classes=NUM_CLASSES)
    plain.load_state_dict(safetensors.torch.load_file(saved), strict=True)


def test_the_same_weights_are_the_same_file(trained, tmp_path):
    """safetensors writes several entries of metadata in an order that changes."""
    contents = set()
    for number in range(8):
        save_weights(trained, tmp_path / f"{number}.safetensors", class_names=CLASS_NAMES)
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(contents) == 1


def test_saving_makes_the_folder_and_leaves_no_other_file(trained, tmp_path):
    path = tmp_path / "new" / "folder" / "a.safetensors"
    save_weights(trained, path, class_names=CLASS_NAMES)
    save_weights(trained, path, class_names=CLASS_NAMES)
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_a_save_that_fails_leaves_the_old_file_and_no_other(monkeypatch, trained, saved):
    content = saved.read_bytes()

    def half(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="disk full"):
        save_weights(trained, saved, class_names=CLASS_NAMES)
    assert saved.read_bytes() == content
    assert list(saved.parent.iterdir()) == [saved]
