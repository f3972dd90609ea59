"""The last features of architectures of all kinds."""

import pytest
import timm
import torch
from torch import nn

from distillation.models.creation import create_classifier
from distillation.models.features import describe_features, has_features, last_features


def raw_and_features(name, size, **options):
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=3, **options).eval()
    with torch.no_grad():
        raw = net.forward_features(torch.randn(2, 3, size, size))
    return raw, last_features(raw, net)


# Families whose maps timm itself brings to (B, C, h, w) by other code.
@pytest.mark.parametrize(
    ("name", "size", "img_size"),
    [
        ("test_vit", 64, 64),
        ("deit_tiny_distilled_patch16_224", 64, 64),
        ("xcit_nano_12_p8_224", 32, 32),
        ("test_mambaout", 64, None),
        ("test_convnext", 64, None),
        ("test_resnet", 64, None),
    ],
)
def test_maps_are_those_timm_makes(name, size, img_size):
    options = {} if img_size is None else {"img_size": img_size}
    net = timm.create_model(name, num_classes=3, **options).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = net.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
        features = last_features(net.forward_features(images), net)
    assert features.ndim == 4
    assert features.shape[2] > 1
    assert torch.allclose(features, expected[-1], atol=1e-5)


def test_a_class_token_that_timm_does_not_declare_is_left_out():
    raw, features = raw_and_features("coat_lite_tiny", 64, img_size=64)
    assert raw.shape == (2, 5, 320)
    assert torch.equal(features.flatten(2), raw[:, 1:].transpose(1, 2))


@pytest.mark.parametrize("name", ["pit_ti_224", "pit_ti_distilled_224"])
def test_class_tokens_alone_are_averaged(name):
    raw, features = raw_and_features(name, 32, img_size=32)
    assert features.shape == (2, 256)
    assert torch.allclose(features, raw.mean(dim=1))


@pytest.mark.parametrize(
    ("name", "size"), [("crossvit_9_240", 240), ("coat_tiny", 224), ("efficientvim_m1", 32)]
)
def test_several_scales_are_no_features(name, size):
    raw, features = raw_and_features(name, size)
    assert isinstance(raw, list)
    assert features is None


def test_tokens_that_fill_no_square_are_averaged_without_the_class_token():
    net = nn.Module()
    net.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
    raw = torch.randn(2, 7, 4)
    assert torch.allclose(last_features(raw, net), raw[:, 1:].mean(dim=1))


def test_features_pooled_by_the_model_itself_stay():
    raw = torch.randn(2, 4)
    assert torch.equal(last_features(raw, nn.Module()), raw)
    assert last_features(torch.randn(2, 3, 4, 5, 6), nn.Module()) is None
    assert last_features({"a": raw}, nn.Module()) is None


@pytest.mark.parametrize(
    ("name", "size", "shape", "said"),
    [
        ("test_resnet", 64, (96, 2, 2), "a 2 × 2 map of features"),
        ("pit_ti_224", 32, (256,), "no map of features, only their mean"),
        ("coat_tiny", 32, (), "only logits"),
    ],
)
def test_the_shape_says_what_a_model_can_teach_by(name, size, shape, said):
    model = create_classifier(name, num_classes=3, image_size=size, seed=0)
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    outputs = model.eval().outputs(images)
    assert model.feature_shape(size) == shape
    assert shape == (() if outputs.features is None else outputs.features.shape[1:])
    assert torch.allclose(outputs.logits, model(images), atol=1e-6)
    assert describe_features(shape) == said
    assert has_features(shape, "map") is (len(shape) == 3)
    assert has_features(shape, "pooled") is (len(shape) > 0)
