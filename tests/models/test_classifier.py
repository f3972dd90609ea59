"""Creating classifiers, their input and outputs, and their weights on disk."""

import json
import pickle
import re
import struct
import zipfile

import huggingface_hub.constants
import pytest
import safetensors
import safetensors.torch
import timm
import torch
from torch import nn

from distillation.models.classifier import (
    Classifier,
    create_classifier,
    fingerprint_model,
    freeze,
    load_weights,
    save_weights,
)
from distillation.models.names import ModelError, check_model_name

NUM_CLASSES = 5
CLASS_NAMES = ("a", "b", "c", "d", "ü")
NAMES = ["test_efficientnet", "test_resnet", "test_vit"]


def create(name="test_efficientnet", **options):
    options = {"num_classes": NUM_CLASSES, "image_size": 64, "seed": 0} | options
    return create_classifier(name, **options)


def make_images(size=64, count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def states_equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


def weights_of(classifier):
    return {key: value.clone() for key, value in classifier.net.state_dict().items()}


# Names


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


# Creation


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides_the_weights(name):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = create(name, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert states_equal(weights_of(first), weights_of(create(name, seed=7)))
    assert not states_equal(weights_of(first), weights_of(create(name, seed=8)))


@pytest.mark.parametrize("name", [*NAMES, "mobilenetv3_small_100"])
def test_logits_have_one_column_a_class(name):
    model = create(name, num_classes=7).eval()
    assert model(make_images(count=3)).shape == (3, 7)
    assert (model.name, model.num_classes) == (name, 7)


@pytest.mark.parametrize(
    ("name", "path"), [("test_efficientnet", "conv_stem"), ("test_resnet", "conv1.0")]
)
@pytest.mark.parametrize(("stride", "side"), [(1, 4), (2, 2), (None, 2)])
def test_stem_stride(name, path, stride, side):
    model = create(name, stem_stride=stride).eval()
    assert model.net.get_submodule(path).stride == ((stride or 2,) * 2)
    assert model.outputs(make_images()).features.shape[2:] == (side, side)
    # The weights are the same whatever the stride.
    assert states_equal(weights_of(model), weights_of(create(name)))


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_stem_stride_of_a_patch_embedding_is_refused(name):
    with pytest.raises(ModelError, match=f"stem_stride: got 1, but {name} has no overlapping"):
        create(name, stem_stride=1)
    create(name, stem_stride=None)


@pytest.mark.parametrize("size", [32, 64])
def test_architectures_of_a_fixed_size_are_built_for_the_images(size):
    outputs = create("test_vit", image_size=size).eval().outputs(make_images(size))
    assert outputs.features.shape == (2, 64, size // 16, size // 16)


def test_weights_and_results_are_channels_last():
    model = create("efficientnet_b0").eval()
    weights = [p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert weights
    for weight in weights:
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()


# Pretrained weights, without a network


def refuse_pretrained(monkeypatch, error):
    """Let timm.create_model raise when it is asked for published weights; lists those asked."""
    asked = []
    original = timm.create_model

    def create_model(name, pretrained=False, **options):
        if pretrained:
            asked.append(name)
            raise error
        return original(name, pretrained=False, **options)

    monkeypatch.setattr("distillation.models.classifier.timm.create_model", create_model)
    return asked


@pytest.mark.parametrize(
    "error", [OSError("no route to host\nmore lines"), RuntimeError("offline"), ValueError()]
)
def test_pretrained_without_network_points_to_a_local_file(monkeypatch, error):
    asked = refuse_pretrained(monkeypatch, error)
    with pytest.raises(ModelError) as caught:
        create("test_resnet", pretrained=True)
    message = str(caught.value)
    assert asked == ["test_resnet"]
    assert message.startswith("pretrained: the published weights of test_resnet cannot be had")
    assert type(error).__name__ in message
    assert "more lines" not in message
    assert "teacher_checkpoint or student_checkpoint, or set pretrained to false" in message
    assert caught.value.__cause__ is error


def test_pretrained_with_the_real_hub_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The hub's client reads its environment when it is imported.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"weights of test_resnet .* teacher_checkpoint"):
        create("test_resnet", pretrained=True)


def test_a_checkpoint_takes_the_place_of_published_weights(monkeypatch, tmp_path):
    trained = create("test_resnet", seed=3)
    save_weights(trained, tmp_path / "a.safetensors", class_names=CLASS_NAMES)
    asked = refuse_pretrained(monkeypatch, OSError("no network"))
    model = create("test_resnet", pretrained=True, checkpoint=tmp_path / "a.safetensors")
    assert asked == []
    assert states_equal(weights_of(model), weights_of(trained))


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


@pytest.mark.parametrize("shape", [(2, 7, 4), (2, 4)])
def test_features_that_are_no_map_are_refused(shape):
    classifier = Classifier(Shaped(*shape), name="by hand", num_classes=1)
    with pytest.raises(ModelError, match=r"forward_features gives shape \(2, .*square number"):
        classifier.outputs(make_images(8))


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


def test_the_fingerprint_of_a_model_outlives_its_file_and_changes_with_its_statistics(saved):
    model = create("test_efficientnet", seed=4, checkpoint=saved)
    again = create("test_efficientnet", seed=5, checkpoint=saved)
    first = fingerprint_model(model)
    assert fingerprint_model(again) == first
    assert fingerprint_model(freeze(again)) == first
    model.train()(make_images(count=4))  # moves running means alone
    assert fingerprint_model(model) != first


# Weights on disk


@pytest.fixture(scope="module")
def trained():
    """A model whose running statistics are no longer those of the start."""
    model = create("test_efficientnet", seed=3).train()
    for _ in range(2):
        model(make_images(count=4))
    return model.eval()


@pytest.fixture
def saved(trained, tmp_path):
    path = tmp_path / "trained.safetensors"
    save_weights(trained, path, class_names=CLASS_NAMES)
    return path


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
    assert json.loads(about) == {
        "architecture": "test_efficientnet",
        "class_names": ["a", "b", "c", "d", "ü"],
    }
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

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("distillation.models.classifier.safetensors.torch.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        save_weights(trained, saved, class_names=CLASS_NAMES)
    assert saved.read_bytes() == content
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": v for key, v in state.items()}},
    ],
    ids=["bare", "state_dict", "model", "module.", "state_dict of module."],
)
def test_files_of_torch_save(trained, tmp_path, wrap, legacy):
    path = tmp_path / "weights.pth"
    content = wrap(weights_of(trained))
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    loaded = create("test_efficientnet", seed=4, checkpoint=path)
    assert states_equal(weights_of(loaded), weights_of(trained))


def test_counters_of_batches_may_be_missing(trained, tmp_path):
    state = {k: v for k, v in weights_of(trained).items() if not k.endswith("batches_tracked")}
    assert len(state) < len(weights_of(trained))
    torch.save(state, tmp_path / "a.pt")
    loaded = weights_of(create("test_efficientnet", seed=4, checkpoint=tmp_path / "a.pt"))
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


class Arbitrary:
    """Writes a file when it is unpickled by a loader that trusts it."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, zipped):
    path, mark = tmp_path / "evil.pt", tmp_path / "mark"
    content = {"conv_stem.weight": Arbitrary(mark)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ModelError, match=r"evil\.pt: damaged, or not a file of tensors alone"):
        create(checkpoint=path)
    assert not mark.exists()


def refused(path, match, **options):
    """Check that loading fails and that the net is as it was; gives the message."""
    model = create("test_efficientnet", seed=4, **options)
    before = weights_of(model)
    with pytest.raises(ModelError, match=match) as caught:
        load_weights(model.net, path, name=model.name)
    assert states_equal(weights_of(model), before)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message[-1] != " ", "no reason is given"
    return message


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_missing_file_or_a_folder_is_named(tmp_path, ending):
    path = tmp_path / f"weights{ending}"
    refused(path, "no such file")
    path.mkdir()
    refused(path, "no such file")


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_truncated_files(trained, tmp_path, kind, keep):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    if kind == "safetensors":
        save_weights(trained, path, class_names=CLASS_NAMES)
    else:
        zipped = kind == "zip"
        torch.save(weights_of(trained), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused(path, "damaged|cannot be read")


@pytest.mark.parametrize(
    "content",
    [
        b"hello world\n",
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\x03\x04",  # the beginning of a zip file
        b"\x80\x02.",  # a pickle of nothing
        b"a\xff\x00\x17",  # takes from torch's unpickler's empty stack
        struct.pack("<Q", 10**15) + b"{}",
    ],
)
@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_files_of_something_else(tmp_path, content, ending):
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    refused(path, "damaged|cannot be read")


def test_a_zip_of_something_else(tmp_path):
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path, "damaged|cannot be read")


def test_a_damaged_byte_in_the_header(saved):
    content = bytearray(saved.read_bytes())
    content[8] = 0
    saved.write_bytes(content)
    refused(saved, "damaged")


@pytest.mark.parametrize(
    "content", [torch.zeros(3), [torch.zeros(3)], {"a": 1.0}, {"state_dict": {"a": "b"}}]
)
def test_files_of_torch_save_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "holds no state dict")


def test_weights_of_another_architecture(tmp_path):
    save_weights(create("test_resnet"), tmp_path / "a.safetensors", class_names=CLASS_NAMES)
    message = refused(tmp_path / "a.safetensors", "the weights are not those of test_efficientnet")
    assert "conv_stem.weight is missing" in message
    assert " is not part of it" in message
    assert re.search(r"\(\d{3} tensors differ\)", message)


@pytest.mark.parametrize(
    ("name", "layer"), [("test_efficientnet", "classifier"), ("test_vit", "head")]
)
def test_weights_for_other_classes(tmp_path, name, layer):
    path = tmp_path / "a.safetensors"
    save_weights(create(name, num_classes=9), path, class_names=tuple("abcdefghi"))
    match = rf"{layer}\.weight is for 9 classes, the data set has 5; allowed"
    with pytest.raises(ModelError, match=match):
        create(name, checkpoint=path)


def test_a_classifier_that_differs_otherwise_is_not_put_down_to_the_classes(trained, tmp_path):
    state = weights_of(trained)
    state["classifier.weight"] = state["classifier.weight"][:, :-1].contiguous()
    torch.save(state, tmp_path / "a.pt")
    message = refused(tmp_path / "a.pt", r"classifier\.weight has shape \(5, 255\), not \(5, 256\)")
    assert "5 classes" not in message


def change(state, key, value):
    return {k: v for k, v in {**state, key: value}.items() if v is not None}


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("conv_stem.weight", None, r"conv_stem\.weight is missing \(1 tensors differ\)"),
        ("classifier.bias", None, r"classifier\.bias is missing"),
        ("bn1.running_var", None, r"bn1\.running_var is missing"),
        ("more.weight", torch.zeros(1), r"more\.weight is not part of it \(1 tensors differ\)"),
        ("bn1.bias", torch.zeros(7), r"bn1\.bias has shape \(7,\), not \(24,\)"),
        ("classifier.bias", torch.tensor(0.0), r"classifier\.bias has shape \(\), not \(5,\)"),
    ],
)
@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_one_tensor_that_does_not_fit_stops_all(trained, tmp_path, key, value, match, ending):
    state = change({k: v.contiguous() for k, v in weights_of(trained).items()}, key, value)
    path = tmp_path / f"a{ending}"
    (safetensors.torch.save_file if ending == ".safetensors" else torch.save)(state, path)
    message = refused(path, match)
    assert "the weights are not those of test_efficientnet" in message
