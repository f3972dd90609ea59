"""Creating classifiers: seed, stem, published weights, checkpoints that fit or do not."""

import copy
import dataclasses
import re

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch

from distillation.models.classifier import Classifier, save_weights
from distillation.models.creation import _log_once
from distillation.models.heads import read_class_names
from distillation.models.names import ModelError
from tests.helpers.tiny_models import (
    CLASS_NAMES,
    NAMES,
    NUM_CLASSES,
    create,
    make_images,
    states_equal,
    weights_of,
)


@pytest.fixture(autouse=True)
def _logged_anew():
    """Let a test see what another one had logged."""
    _log_once.cache_clear()


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

    monkeypatch.setattr("distillation.models.creation.timm.create_model", create_model)
    return asked


@pytest.mark.parametrize(
    "error", [OSError("no route to host\nmore lines"), RuntimeError("offline"), ValueError()]
)
def test_pretrained_without_network_points_to_a_local_file(monkeypatch, error):
    asked = refuse_pretrained(monkeypatch, error)
    with pytest.raises(ModelError) as caught:
        create("test_resnet", pretrained=True, will_train=True)
    message = str(caught.value)
    assert asked == ["test_resnet"]
    assert message.startswith("model_pretrained: the published weights of test_resnet cannot be")
    assert type(error).__name__ in message
    assert "more lines" not in message
    assert "a file of these weights as model_checkpoint" in message
    assert message.endswith("or model_pretrained=false")
    assert caught.value.__cause__ is error


def test_pretrained_with_the_real_hub_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # The hub's client reads its environment when it is imported.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"weights of test_resnet .* model_checkpoint"):
        create("test_resnet", pretrained=True, will_train=True)


def test_a_checkpoint_takes_the_place_of_published_weights(monkeypatch, tmp_path):
    trained = create("test_resnet", seed=3)
    save_weights(trained, tmp_path / "a.safetensors", class_names=CLASS_NAMES)
    asked = refuse_pretrained(monkeypatch, OSError("no network"))
    model = create("test_resnet", pretrained=True, checkpoint=tmp_path / "a.safetensors")
    assert asked == []
    assert states_equal(weights_of(model), weights_of(trained))


# Checkpoints


def test_counters_of_batches_may_be_missing(trained, tmp_path):
    state = {k: v for k, v in weights_of(trained).items() if not k.endswith("batches_tracked")}
    assert len(state) < len(weights_of(trained))
    torch.save(state, tmp_path / "a.pt")
    loaded = weights_of(create("test_efficientnet", seed=4, checkpoint=tmp_path / "a.pt"))
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def refused(path, match, **options):
    """Check that a checkpoint is refused in one line that names it; returns the line."""
    with pytest.raises(ModelError, match=match) as caught:
        create(**{"name": "test_efficientnet", "checkpoint": path} | options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_weights_of_another_architecture_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(create("test_resnet"), path, class_names=CLASS_NAMES)
    refused(
        path,
        r"a\.safetensors: holds test_resnet, but model is test_efficientnet; allowed: "
        "model=test_resnet, or a checkpoint of test_efficientnet$",
    )
    safetensors.torch.save_file(weights_of(create("test_resnet")), path)
    message = refused(path, "the weights are not those of test_efficientnet")
    assert "bn1.weight has shape" in message
    assert " is not part of it" in message
    assert re.search(r"\(\d{3} tensors differ\)", message)


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


def logged(caplog):
    return [record.message for record in caplog.records]


# The head


@pytest.mark.parametrize(
    ("name", "layer"), [("test_efficientnet", "classifier"), ("test_vit", "head")]
)
def test_a_head_for_other_classes_is_replaced_where_training_is_ahead(
    tmp_path, caplog, name, layer
):
    caplog.set_level("INFO")
    path, given = tmp_path / "a.safetensors", create(name, num_classes=1000, seed=1)
    safetensors.torch.save_file(weights_of(given), path)
    reason = f"{layer}.weight is for 1000 classes, the data set has 5"
    refused(
        path,
        f"{reason}; allowed: a checkpoint trained on the data set's classes, or teacher_epochs "
        "above 0, which trains a new head$",
        name=name,
        key="teacher",
    )
    model = create(name, checkpoint=path, will_train=True, key="teacher")
    fresh, old, new = (weights_of(m) for m in (create(name), given, model))
    for key in new:
        expected = fresh if key.startswith(f"{layer}.") else old
        assert torch.equal(new[key], expected[key]), key
    assert f"teacher_checkpoint {path}: {reason}; the body is taken, the head is new" in logged(
        caplog
    )


def test_a_body_without_a_head_is_taken_where_training_is_ahead(tmp_path, caplog):
    caplog.set_level("INFO")
    path, given = tmp_path / "a.safetensors", create("test_resnet", seed=1)
    state = {k: v for k, v in weights_of(given).items() if not k.startswith("fc.")}
    safetensors.torch.save_file(state, path)
    refused(path, r"has no classifier \(fc\.weight is missing\); allowed", name="test_resnet")
    model = weights_of(create("test_resnet", checkpoint=path, will_train=True))
    assert all(torch.equal(model[key], value) for key, value in state.items())
    assert torch.equal(model["fc.weight"], weights_of(create("test_resnet"))["fc.weight"])
    assert any("the body is taken, the head is new" in line for line in logged(caplog))


def test_rows_of_classes_in_another_order_are_put_in_order(tmp_path, caplog):
    caplog.set_level("INFO")
    path, given = tmp_path / "a.safetensors", create("test_resnet", seed=1).eval()
    save_weights(given, path, class_names=("10", "2", "c", "a", "b"))
    names = ("2", "10", "a", "b", "c")
    model = create("test_resnet", class_names=names, checkpoint=path).eval()
    images = make_images()
    assert torch.allclose(model(images), given(images)[:, [1, 0, 3, 4, 2]], atol=1e-6)
    message = "its classes come in another order; the head's rows are put into the data set's"
    assert any(line.endswith(message) for line in logged(caplog))


def test_other_classes_of_the_same_number_are_refused_or_get_a_new_head(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(create("test_resnet", seed=1), path, class_names=("a", "b", "c", "d", "cat"))
    options = {"name": "test_resnet", "class_names": CLASS_NAMES}
    match = r"its classes are not the data set's \(only one of them has cat, ü\); allowed"
    refused(path, match, **options)
    model = create(**options, checkpoint=path, will_train=True)
    assert torch.equal(weights_of(model)["fc.bias"], weights_of(create("test_resnet"))["fc.bias"])


def test_the_order_of_classes_may_be_given(tmp_path):
    path, names = tmp_path / "a.safetensors", tmp_path / "names.txt"
    given = create("test_resnet", seed=1).eval()
    safetensors.torch.save_file(weights_of(given), path)
    names.write_text("ü\nd\nc\nb\na\n\n", encoding="utf-8")
    options = {"class_names": CLASS_NAMES, "checkpoint": path, "class_names_file": names}
    model = create("test_resnet", **options).eval()
    images = make_images()
    assert torch.allclose(model(images), given(images).flip(1), atol=1e-6)
    save_weights(given, path, class_names=CLASS_NAMES)
    match = r"^model_class_names: .*names\.txt gives another order or other classes than the "
    with pytest.raises(ModelError, match=match + r"checkpoint .*a\.safetensors says itself"):
        create("test_resnet", **options)


def test_names_may_be_composed_or_not(tmp_path):
    """One letter or a letter and its accent: the data set's are composed."""
    path, names = tmp_path / "a.safetensors", tmp_path / "names.txt"
    given = create("test_resnet", seed=1).eval()
    images, apart = make_images(), ("a", "u\u0308", "b", "c", "d")
    save_weights(given, path, class_names=apart)
    model = create("test_resnet", class_names=CLASS_NAMES, checkpoint=path).eval()
    assert torch.allclose(model(images), given(images)[:, [0, 2, 3, 4, 1]], atol=1e-6)
    names.write_text("\n".join(apart), encoding="utf-8")
    assert read_class_names(names, key="x") == ("a", "ü", "b", "c", "d")


def test_the_order_of_published_classes_may_be_given(monkeypatch, tmp_path):
    original, names = timm.create_model, tmp_path / "names.txt"
    published, config = (
        original("test_resnet", num_classes=5),
        timm.get_pretrained_cfg("test_resnet"),
    )
    monkeypatch.setattr(
        "distillation.models.creation.timm.create_model",
        lambda name, pretrained=False, **options: (
            copy.deepcopy(published) if pretrained else original(name, **options)
        ),
    )
    monkeypatch.setattr(
        "distillation.models.creation.timm.get_pretrained_cfg",
        lambda *name: dataclasses.replace(config, num_classes=5),
    )
    names.write_text("ü\nd\nc\nb\na\n", encoding="utf-8")
    options = {"class_names": CLASS_NAMES, "pretrained": True}
    plain = create("test_resnet", **options).eval()
    model = create("test_resnet", **options, class_names_file=names).eval()
    images = make_images()
    assert torch.allclose(model(images), plain(images).flip(1), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"pretrained": True, "will_train": True}])
def test_an_order_of_classes_without_a_head_of_theirs_is_refused(monkeypatch, tmp_path, options):
    original, names = timm.create_model, tmp_path / "names.txt"
    monkeypatch.setattr(
        "distillation.models.creation.timm.create_model",
        lambda name, pretrained=False, **more: original(name, **more),
    )
    names.write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"^model_class_names: got .*names\.txt, but there are no"):
        create("test_resnet", class_names=CLASS_NAMES, class_names_file=names, **options)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a\n", r"holds 1 name\(s\); allowed: different class names, one per line"),
        (b"a\nb\na\n", r"holds a twice; allowed: different class names"),
        (b"a\n\xff\n", r"cannot be read \(it is no text in UTF-8\); allowed: a text file"),
        (None, r"cannot be read \(is a folder\); allowed: a text file"),
    ],
)
def test_files_of_class_names_that_are_none(tmp_path, content, problem):
    path = tmp_path / "names"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"^teacher_class_names: {path} {problem}"):
        read_class_names(path, key="teacher_class_names")


# What a checkpoint says of its model


def test_a_stem_stride_the_parameters_leave_open_is_that_of_the_checkpoint(tmp_path, caplog):
    caplog.set_level("INFO")
    path, given = tmp_path / "a.safetensors", create("test_resnet", seed=1, stem_stride=1).eval()
    save_weights(given, path, class_names=CLASS_NAMES)
    model = create("test_resnet", checkpoint=path).eval()
    images = make_images()
    assert torch.equal(model(images), given(images))
    assert f"model_checkpoint {path}: its stem stride of 1 is followed" in logged(caplog)
    assert model.info.stem_stride == 1
    assert torch.equal(create("test_resnet", checkpoint=path, stem_stride=1).eval()(images),
                       given(images))  # fmt: skip


@pytest.mark.parametrize("will_train", [False, True])
@pytest.mark.parametrize(
    ("said", "asked", "text"),
    [
        (1, 2, r"of 1, but model_stem_stride is 2; allowed: model_stem_stride=1$"),
        (None, 1, r"of the architecture's own, but model_stem_stride is 1; allowed: .*=null$"),
    ],
)
def test_another_stem_stride_is_refused(tmp_path, said, asked, text, will_train):
    path = tmp_path / "a.safetensors"
    save_weights(create("test_resnet", stem_stride=said), path, class_names=CLASS_NAMES)
    match = "was trained with a stem stride " + text
    refused(path, match, name="test_resnet", stem_stride=asked, will_train=will_train)


def test_the_own_stem_stride_by_its_number_is_the_same(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(create("test_resnet"), path, class_names=CLASS_NAMES)
    create("test_resnet", checkpoint=path, stem_stride=2)


def test_another_image_size_is_refused_unless_training_is_ahead(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "a.safetensors"
    save_weights(create("test_resnet", image_size=96), path, class_names=CLASS_NAMES)
    said = "was trained on images of 96 pixels"
    match = rf"{said}, but image_size is 64; allowed: image_size=96, or model_epochs above 0"
    refused(path, match, name="test_resnet")
    create("test_resnet", checkpoint=path, will_train=True)
    assert f"model_checkpoint {path}: {said}, and goes on with 64" in logged(caplog)


def test_the_normalisation_of_a_checkpoint_is_followed(tmp_path):
    path, given = tmp_path / "a.safetensors", create("test_resnet", seed=1).eval()
    info = dataclasses.replace(given.info, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    given = Classifier(given.net, name="test_resnet", num_classes=NUM_CLASSES, info=info).eval()
    save_weights(given, path, class_names=CLASS_NAMES)
    model = create("test_resnet", checkpoint=path).eval()
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert model.std.flatten().tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert torch.equal(model(make_images()), given(make_images()))


def test_what_a_file_does_not_say_is_named_where_it_matters(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(weights_of(create("test_resnet")), path)
    create("test_resnet", checkpoint=path, will_train=True)
    assert logged(caplog) == []
    create("test_resnet", checkpoint=path, stem_stride=1)
    assert logged(caplog) == [
        f"model_checkpoint {path} does not say everything; assumed: a stem stride of 1, images of "
        "64 pixels, timm's normalisation for test_resnet, the data set's classes in their order, "
        "as strings"
    ]


# Names that stand for weights


def test_a_tag_without_its_weights_is_refused(tmp_path):
    match = (
        r"^student: got 'test_resnet\.r160_in1k', which names weights, but student_pretrained is "
        "false; allowed: student_pretrained=true to start from them, or the name of an"
    )
    with pytest.raises(ModelError, match=match):
        create("test_resnet.r160_in1k", key="student")
    path = tmp_path / "a.safetensors"
    save_weights(create("test_resnet", seed=1), path, class_names=CLASS_NAMES)
    create("test_resnet.r160_in1k", checkpoint=path)


def make_folder(folder, model, **options):
    """Write a folder as timm's own function does."""
    net = model.net.to(memory_format=torch.contiguous_format)
    timm.models.save_for_hf(net, folder, safe_serialization=True, **options)
    return f"local-dir:{folder}"


def test_a_folder_in_the_manner_of_hugging_face(tmp_path):
    given = create("test_vit", seed=1).eval()
    name = make_folder(
        tmp_path / "model",
        given,
        model_config={"label_names": list(CLASS_NAMES)},
        data_config={"img_size": 64},
    )
    with pytest.raises(ModelError, match=r"local-dir:.*which names weights, but model_pretrained"):
        create(name)
    options = {"class_names": CLASS_NAMES, "image_size": 64}
    images = make_images()
    model = create(name, pretrained=True, **options).eval()
    assert torch.equal(model(images), given(images))
    assert model.name == "test_vit"
    for checkpoint in (name, name.removeprefix("local-dir:")):
        other = create("test_vit", checkpoint=checkpoint, **options).eval()
        assert torch.equal(other(images), given(images))
    # What a training of it leaves needs the folder no more.
    save_weights(model, tmp_path / "trained.safetensors", class_names=CLASS_NAMES)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    again = create(name, checkpoint=tmp_path / "trained.safetensors", **options).eval()
    assert torch.equal(again(images), given(images))


def test_published_weights_for_other_classes_need_a_training():
    match = (
        r"^teacher: the published weights of test_resnet are for 1000 classes, the data set has 5; "
        "allowed: teacher_epochs above 0"
    )
    with pytest.raises(ModelError, match=match):
        create("test_resnet", pretrained=True, key="teacher")


def test_arguments_that_an_architecture_does_not_take_are_named(tmp_path):
    name = make_folder(tmp_path / "model", create("test_resnet"), model_args={"depth_of_sea": 3})
    match = r"^teacher: config\.json gives model_args depth_of_sea, .*and test_resnet does not"
    with pytest.raises(ModelError, match=match):
        create(name, pretrained=True, will_train=True, key="teacher")
