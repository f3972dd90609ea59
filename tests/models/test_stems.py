"""The first convolutions' stride: what changes with it, and which models refuse it."""

import pytest
import timm
import torch

from distillation.models.creation import create_classifier
from distillation.models.layers import use_faster_layers
from distillation.models.names import ModelError
from distillation.models.stems import set_stem_stride

OWN_MAP_ONLY = "is built for the map that its own stem makes, and cannot be run with another"


def make_net(name, size=64, **options):
    if timm.get_pretrained_cfg(name).fixed_input_size:
        options["img_size"] = size
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=3, **options)


def strides(net):
    convolutions = (m for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    return [module.stride for module in convolutions]


@pytest.mark.parametrize(
    ("name", "stems"),
    [
        ("test_resnet", ["conv1.0"]),
        ("test_efficientnet", ["conv_stem"]),
        ("repvgg_a0", ["stem.conv_kxk.conv", "stem.conv_1x1.conv"]),
        ("mobileone_s0", ["stem.conv_kxk.0.conv", "stem.conv_scale.conv"]),
        ("fastvit_t8", ["stem.0.conv_kxk.0.conv", "stem.0.conv_scale.conv"]),
        ("pvt_v2_b0", ["patch_embed.proj"]),
    ],
)
def test_all_convolutions_of_the_image_change_together_and_no_other(name, stems):
    net, own = make_net(name), make_net(name)
    set_stem_stride(net, name, 1, image_size=64)
    changed = [
        path
        for path, module in net.named_modules()
        if isinstance(module, torch.nn.Conv2d) and module.stride != own.get_submodule(path).stride
    ]
    assert sorted(changed) == sorted(stems)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        larger, smaller = (n.eval().forward_features(images) for n in (net, own))
    factor = own.get_submodule(stems[0]).stride[0]
    assert larger.shape[2] == factor * smaller.shape[2]


@pytest.mark.parametrize("is_training", [True, False])
def test_the_net_is_otherwise_left_as_it_was(is_training):
    net, own = make_net("test_resnet").train(is_training), make_net("test_resnet")
    generator = torch.get_rng_state()
    set_stem_stride(net, "test_resnet", 1, image_size=64)
    assert all(module.training is is_training for module in net.modules())
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(not module._forward_pre_hooks for module in net.modules())
    for (key, value), other in zip(
        net.state_dict().items(), own.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), key


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_vit", "has no overlapping first convolution"),
        ("test_convnext", "has no overlapping first convolution"),
        ("coat_lite_tiny", "has no overlapping first convolution"),
        ("csatv2", "rearranges the image before its first convolution"),
        ("tresnet_m", "rearranges the image before its first convolution"),
        ("dla46_c", "has a first convolution of stride 1 already"),
        ("levit_128s", OWN_MAP_ONLY),
        ("test_coatnet", OWN_MAP_ONLY),
        ("efficientformerv2_s0", OWN_MAP_ONLY),
        ("pit_ti_224", OWN_MAP_ONLY),
        ("visformer_tiny", OWN_MAP_ONLY),
        ("volo_d1_224", OWN_MAP_ONLY),
    ],
)
def test_models_of_one_stem_refuse_another_stride(name, reason):
    net = make_net(name)
    before = strides(net)
    with pytest.raises(ModelError) as caught:
        set_stem_stride(net, name, 1, image_size=64, key="student_stem_stride")
    assert str(caught.value) == (
        f"student_stem_stride: got 1, but {name} {reason}; allowed for it: null"
    )
    assert strides(net) == before


def test_a_stride_that_changes_no_map_is_refused():
    """A map brought to a fixed size after the stem."""
    net = make_net("test_resnet")
    original = net.forward_features
    net.forward_features = lambda images: torch.nn.functional.adaptive_avg_pool2d(
        original(images), 2
    )
    with pytest.raises(ModelError) as caught:
        set_stem_stride(net, "test_resnet", 1, image_size=64)
    assert str(caught.value) == (
        "stem_stride: got 1, but test_resnet has a feature map of the same size whatever the "
        "stride; allowed for it: null"
    )


def test_a_lack_of_memory_is_not_taken_for_a_refusal():
    net = make_net("test_resnet")

    def fail(images):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    net.forward_features = fail
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        set_stem_stride(net, "test_resnet", 1, image_size=64)


def test_a_map_that_is_never_below_two_pixels_is_no_reason_either():
    net = make_net("mobilevitv2_050")
    set_stem_stride(net, "mobilevitv2_050", 1, image_size=32)
    assert net.get_submodule("stem.conv").stride == (1, 1)
    with torch.no_grad():
        maps = [net.eval().forward_features(torch.randn(1, 3, s, s)).shape[2] for s in (32, 64)]
    assert maps == [2, 4]


def test_a_map_of_one_pixel_either_way_is_no_reason_to_refuse():
    net = make_net("test_resnet")
    set_stem_stride(net, "test_resnet", 1, image_size=8)
    assert net.get_submodule("conv1.0").stride == (1, 1)
    with torch.no_grad():
        assert net.eval().forward_features(torch.randn(1, 3, 8, 8)).shape[2:] == (1, 1)


@pytest.mark.parametrize(
    ("name", "stem"), [("efficientnet_b0", "conv_stem"), ("mobilenetv3_small_100", "conv_stem")]
)
def test_the_default_pair_keeps_its_bits(name, stem):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(3)
    net = timm.create_model(name, num_classes=10)
    net.get_submodule(stem).stride = (1, 1)
    use_faster_layers(net)
    net.to(memory_format=torch.channels_last).eval()
    model = create_classifier(name, num_classes=10, image_size=32, seed=3, stem_stride=1).eval()
    for key, value in model.net.state_dict().items():
        assert torch.equal(value, net.state_dict()[key]), key
    with torch.no_grad():
        outputs = model.outputs(images)
        raw = net.forward_features(model._normalize(images))
        assert torch.equal(outputs.logits, net.forward_head(raw))
        assert torch.equal(outputs.features, raw)
