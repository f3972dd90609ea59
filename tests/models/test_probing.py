"""What a model accepts, found by one pass, and the sentence where it does not."""

import re

import pytest
import torch
from torch import nn

from distillation.models.classifier import Classifier, save_weights
from distillation.models.creation import create_classifier
from distillation.models.names import ModelError
from distillation.models.probing import Probe, check_training, head_parameters, probe, size_errors


def create(name="test_resnet", **options):
    return create_classifier(name, **{"num_classes": 3, "image_size": 32, "seed": 0} | options)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "features"), [("test_resnet", (96, 1, 1)), ("pit_ti_224", (256,)), ("coat_tiny", ())]
)
def test_a_probe_says_what_a_model_makes_of_an_image(name, features):
    assert probe(create(name), 32) == Probe(logits=(3,), features=features)


# They fail with RuntimeError, AssertionError and ZeroDivisionError, when created or when run.
@pytest.mark.parametrize(
    ("name", "size", "nearest", "known"),
    [
        ("inception_v3", 32, 84, 299),
        ("ghostnetv2_100", 32, 48, 224),
        ("efficientformer_l1", 32, None, 224),
        ("crossvit_tiny_240", 32, 28, 240),
        ("test_vit", 40, 32, 160),
        ("halonet_h1", 32, None, 256),
        ("levit_128s", 8, 32, 224),
        ("gmlp_ti16_224", 8, 28, 224),
        ("xcit_nano_12_p8_224", 36, 32, 224),
    ],
)
def test_a_size_a_model_cannot_take_is_one_sentence_with_one_it_can(name, size, nearest, known):
    with pytest.raises(ModelError) as caught:
        create(name, image_size=size)
    allowed = f"{nearest} (the nearest tried), {known} (timm's)" if nearest else f"{known}"
    start = f"image_size: got {size}, but {name} cannot be run on images of {size} × {size} pixels"
    cause, end = re.fullmatch(
        rf"{re.escape(start)} \((\w+.*)\); allowed for it: (.*)", str(caught.value)
    ).groups()
    assert end == allowed
    assert cause.startswith(type(caught.value.__cause__).__name__)
    assert len(cause) <= 81
    if nearest:
        create(name, image_size=nearest)


def test_a_size_that_fails_at_creation_is_not_taken_for_a_lack_of_published_weights():
    with pytest.raises(ModelError, match=r"^image_size: got 36, but xcit_nano_12_p8_224 cannot be"):
        create("xcit_nano_12_p8_224", image_size=36, pretrained=True)


@pytest.mark.parametrize("name", ["qwen3_vit_88m_enc"])
def test_a_model_without_a_classifier_is_refused(name):
    with pytest.raises(ModelError) as caught:
        create(name)
    assert str(caught.value) == (
        f"model: got {name}, which gives no logits for the classes; allowed: a timm model that has "
        "a classifier"
    )


class Pair(nn.Module):
    """A net whose head gives two logits, as timm's distilled models do when told to."""

    pretrained_cfg = {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # noqa: RUF012

    def forward_features(self, images):
        return images

    def forward_head(self, features):
        logits = features.mean((2, 3))
        return logits, logits


def test_logits_that_are_no_tensor_are_refused():
    with pytest.raises(ModelError, match="got by hand, which gives no logits for the classes"):
        probe(Classifier(Pair(), name="by hand", num_classes=3), 8)


def test_distilled_models_give_the_mean_of_their_heads_in_training_too():
    model = create("deit_tiny_distilled_patch16_224").train()
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    raw = model.net.forward_features(model._normalize(images))
    expected = (model.net.head(raw[:, 0]) + model.net.head_dist(raw[:, 1])) / 2
    assert torch.allclose(model(images), expected, atol=1e-6)


def test_a_lack_of_memory_passes_as_it_is():
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"), size_errors("test_resnet", 32):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(MemoryError), size_errors("test_resnet", 32):
        raise MemoryError


@pytest.mark.parametrize("is_training", [True, False])
def test_checks_leave_the_model_as_it_was(is_training):
    model = create().train(is_training)
    model.net.get_classifier().weight.requires_grad_(False)
    before, generator = state(model), torch.get_rng_state()
    probe(model, 32)
    check_training(model, 32)
    assert torch.equal(torch.get_rng_state(), generator)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(module.training is is_training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.net.get_classifier().weight.requires_grad


def test_a_model_that_was_probed_can_be_trained():
    """LeViT keeps tensors of a pass in eval() for the next."""
    model = create("levit_128s")
    probe(model, 32)
    model.eval()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).sum().backward()


def test_a_batch_of_one_image_is_refused_where_it_cannot_be_normalised():
    with pytest.raises(ModelError) as caught:
        check_training(create(), 32, batch_size=1, key="teacher_batch_size")
    assert str(caught.value) == (
        "teacher_batch_size: got 1, but test_resnet normalises over the batch, and has a single "
        "value per channel at image_size 32; allowed for it: 2 or more images in a batch"
    )
    check_training(create(), 32, batch_size=2)
    check_training(create(), 64, batch_size=1)
    check_training(create("test_vit"), 32, batch_size=1)


def test_shared_tensors_are_saved_under_every_name(tmp_path):
    model = create("coat_tiny")
    first, second = (f"serial_blocks1.{i}.cpe.proj.weight" for i in range(2))
    tensors = model.net.state_dict()
    assert tensors[first].data_ptr() == tensors[second].data_ptr()
    save_weights(model, tmp_path / "a.safetensors", class_names=("a", "b", "c"))
    other = create("coat_tiny", seed=1, checkpoint=tmp_path / "a.safetensors")
    for key, value in other.net.state_dict().items():
        assert torch.equal(value, tensors[key]), key
    loaded = other.net.state_dict()
    assert loaded[first].data_ptr() == loaded[second].data_ptr()


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("test_resnet", {"net.fc"}),
        ("mobilenetv3_small_050", {"net.conv_head", "net.classifier"}),
        ("test_efficientnet", {"net.classifier"}),
        ("test_vit", {"net.head"}),
    ],
)
def test_the_head_is_what_stands_behind_the_features(name, head):
    size = 160 if name == "test_vit" else 32
    model = create_classifier(name, num_classes=3, image_size=size, seed=0)
    images = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    found = {id(parameter) for parameter in head_parameters(model, images)}
    names = {path for path, parameter in model.named_parameters() if id(parameter) in found}
    assert {path.rpartition(".")[0] for path in names} == head
    assert all(parameter.grad is None for parameter in model.parameters())
