"""Tensors at another image size or under other names become what timm itself makes of them."""

import functools
import sys

import pytest
import timm
import torch

from distillation.models.adapting import adapt_state, find_conversion

SMALL_SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
SMALL = {
    "test_vit": {},
    "test_vit2": {},
    "test_vit_relpos": {},
    "swin_tiny_patch4_window7_224": SMALL_SWIN,
    "swinv2_tiny_window8_256": SMALL_SWIN,
    "beit_base_patch16_224": {"embed_dim": 32, "depth": 1, "num_heads": 2},
    "eva02_tiny_patch14_224": {"embed_dim": 32, "depth": 1, "num_heads": 2},
    "vit_small_patch14_dinov2": {"embed_dim": 32, "depth": 1, "num_heads": 2},
    "flexivit_small": {"embed_dim": 32, "depth": 1, "num_heads": 2},
}  # fmt: skip
"""Families with position embeddings or tables of relative positions, at a size for tests."""


def create(name, size, **options):
    torch.manual_seed(size)
    return timm.create_model(name, num_classes=4, img_size=size, **SMALL.get(name, {}), **options)


def as_timm_does(name, size, state):
    overlay = {"state_dict": dict(state), "num_classes": 4, "hf_hub_id": None, "url": ""}
    return create(name, size, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning:timm.*")
@pytest.mark.parametrize("size", [112, 336])
@pytest.mark.parametrize("name", SMALL)
def test_another_image_size_is_resampled_as_timm_does_it(name, size):
    source = 256 if "256" in name else 224
    state = create(name, source).state_dict()
    net = create(name, size)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    adapted, remarks = adapt_state(state, net)
    assert same(net.state_dict(), before)
    net.load_state_dict(adapted, strict=True)
    assert same(net.state_dict(), as_timm_does(name, size, state))
    changed = [key for key in state if key in adapted and state[key].shape != adapted[key].shape]
    assert bool(changed) == bool(remarks)
    for key in changed[:2]:
        sizes = f"from {tuple(state[key].shape)} to {tuple(adapted[key].shape)}"
        assert f"{key} is resampled {sizes}" in remarks
    # timm keeps Swin's windows where the images grow, and shrinks them where they must.
    if name in ("test_vit", "beit_base_patch16_224") or (name.startswith("swin_") and size == 112):
        assert changed


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "regnetx_002"])
def test_what_fits_is_left_as_it_is(name):
    options = {"img_size": 64} if name == "test_vit" else {}
    net = timm.create_model(name, num_classes=4, **options)
    state = net.state_dict()
    adapted, remarks = adapt_state(state, net)
    assert adapted is state
    assert remarks == ()


def test_what_cannot_be_made_to_fit_is_left_for_the_comparison():
    state = timm.create_model("test_efficientnet", num_classes=4).state_dict()
    adapted, remarks = adapt_state(state, create("test_vit", 64))
    assert adapted is state
    assert remarks == ()


@pytest.mark.parametrize("classes", [0, 9])
def test_a_head_of_another_size_does_not_keep_the_positions_from_being_resampled(classes):
    torch.manual_seed(0)
    state = timm.create_model("test_vit", num_classes=classes, img_size=160).state_dict()
    net = create("test_vit", 64)
    adapted, remarks = adapt_state(state, net)
    assert adapted["pos_embed"].shape == net.pos_embed.shape
    assert remarks == ("pos_embed is resampled from (1, 101, 64) to (1, 17, 64)",)
    assert ("head.weight" in adapted) == bool(classes)


# Prefixes


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("prefix", ["backbone.", "encoder.", "student.backbone.", "a.b.c."])
def test_a_prefix_of_any_name_is_taken_away(name, prefix):
    net = timm.create_model(name, num_classes=4)
    state = net.state_dict()
    adapted, remarks = adapt_state({prefix + key: value for key, value in state.items()}, net)
    assert same(adapted, state)
    assert remarks == (f"the prefix {prefix} is taken away from the names",)


def test_a_classifier_beside_the_body_is_kept_and_other_tensors_are_left_out():
    net = timm.create_model("test_resnet", num_classes=4)
    state = net.state_dict()
    stored = {k if k.startswith("fc.") else f"backbone.{k}": v for k, v in state.items()}
    stored["projector.0.weight"] = torch.ones(2)
    adapted, remarks = adapt_state(stored, net)
    assert same(adapted, state)
    assert remarks[1] == "1 tensors beside backbone.* are left out (projector.0.weight, …)"


def test_two_prefixes_that_fit_as_well_are_left_for_the_comparison():
    net = timm.create_model("test_resnet", num_classes=4)
    stored = {f"{p}.{k}": v for p in ("a", "b") for k, v in net.state_dict().items()}
    assert adapt_state(stored, net) == (stored, ())


def test_names_under_a_prefix_at_another_size():
    state = create("test_vit", 160).state_dict()
    net = create("test_vit", 64)
    adapted, remarks = adapt_state({f"encoder.{k}": v for k, v in state.items()}, net)
    net.load_state_dict(adapted, strict=True)
    assert same(adapted, as_timm_does("test_vit", 64, state))
    assert [remark.split()[0] for remark in remarks] == ["the", "pos_embed"]


# Other projects' names


def test_what_dinov2_keeps_for_training_is_left_out():
    net = create("vit_small_patch14_dinov2", 112)
    state = net.state_dict()
    adapted, remarks = adapt_state(state | {"mask_token": torch.zeros(1, 32)}, net)
    assert same(adapted, state)
    assert remarks == ("1 tensors are left out as timm does it (mask_token, …)",)


def test_names_of_torchvisions_densenet_become_timms():
    net = timm.create_model("densenet121", num_classes=4, growth_rate=4, block_config=(1, 1, 1, 1))
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("batches_tracked")}
    # As torchvision wrote them: norm.1 in place of norm1.
    stored = {
        key.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.").replace("conv2.", "conv.2."): value
        for key, value in state.items()
    }  # fmt: skip
    assert stored.keys() != state.keys()
    adapted, remarks = adapt_state(stored, net)
    assert same(adapted, state)
    assert remarks[0].endswith("tensors are renamed as timm does it for other projects' files")


# timm's conversions


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "deit3_small_patch16_224"])
def test_finding_a_conversion_leaves_timm_as_it_was(name):
    module = sys.modules[timm.model_entrypoint(name).__module__]
    before = module.build_model_with_cfg
    net = timm.create_model(name)
    find_conversion(net)
    assert module.build_model_with_cfg is before
    assert timm.create_model(name).num_classes == 1000


class Named:
    def __init__(self, name):
        self.pretrained_cfg = {"architecture": name}


def test_the_conversions_of_all_families_are_found():
    """Also where timm binds options to the function, or gives it another name."""
    by_module = {timm.model_entrypoint(name).__module__: name for name in timm.list_models()}
    names = [*by_module.values(), "flexivit_small", "deit3_small_patch16_224", "crossvit_tiny_240"]
    found = {name: find_conversion(Named(name)) for name in [*names, "resnet18"]}
    missing = set()
    for name, convert in found.items():
        module = sys.modules[timm.model_entrypoint(name).__module__]
        own = getattr(module, "checkpoint_filter_fn", None)
        function = convert.func if isinstance(convert, functools.partial) else convert
        if own is not None and function is not own:
            missing.add(name)
    # timm leaves it out for these itself.
    assert all(name.startswith("vit_") and "resnet" in name for name in missing)
    assert found["deit3_small_patch16_224"].keywords == {"adapt_layer_scale": True}
    assert found["flexivit_small"].keywords["interpolation"] == "bilinear"
    assert found["crossvit_tiny_240"] is not None
    assert found["resnet18"] is None
    assert find_conversion(Named("no such model")) is None
