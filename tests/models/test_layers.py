import copy
import itertools

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from distillation.models import layers
from distillation.models.layers import SmallMapConv2d, depthwise_conv2d, use_faster_layers


def make_maps(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(*shape, generator=generator, dtype=dtype)
    return maps.to(memory_format=torch.channels_last).requires_grad_()


def gradients(function, output_gradient, *inputs):
    """Output and gradients of a function of tensors."""
    output = function(*inputs)
    return [output, *torch.autograd.grad(output, inputs, output_gradient(output))]


def assert_same(plain, other, images, **tolerances):
    """The same outputs and gradients from two layers with the same parameters."""
    twins = images.detach().clone().requires_grad_()
    expected, found = plain(images), other(twins)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, **tolerances)
    weights = torch.randn_like(expected)
    expected.backward(weights)
    found.backward(weights)
    torch.testing.assert_close(twins.grad, images.grad, **tolerances)
    for first, second in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(second.grad, first.grad, **tolerances)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        ((5, 7), {"kernel_size": 1}),
        ((5, 7), {"kernel_size": 1, "stride": 2}),
        ((5, 7), {"kernel_size": 3, "padding": 1}),
        ((5, 7), {"kernel_size": (3, 5), "padding": (1, 2), "stride": 2}),
        ((6, 6), {"kernel_size": 5, "padding": 2, "groups": 6}),
        ((6, 6), {"kernel_size": 3, "padding": 1, "groups": 6, "stride": 2}),
        ((1, 1), {"kernel_size": 3, "padding": 1}),
    ],
)
def test_it_is_the_convolution(channels, options, size, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(*channels, bias=bias, **options).double()
    other = copy.deepcopy(plain)
    use_faster_layers(other)
    assert type(other) is SmallMapConv2d
    assert_same(plain, other, make_maps(4, channels[0], size, size, dtype=torch.float64))


@pytest.mark.parametrize("kernel", [3, 5, 7, (3, 5)])
@pytest.mark.parametrize("stride", [1, 2, 3, (2, 1)])
@pytest.mark.parametrize("map_size", [(2, 2), (4, 4), (7, 3), (8, 8)])
def test_a_training_of_small_maps_has_the_convolutions_gradients(kernel, stride, map_size):
    kernel_size = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = tuple(side // 2 for side in kernel_size)
    plain = nn.Conv2d(24, 24, kernel_size, stride, padding, groups=24, bias=False)
    other = copy.deepcopy(plain)
    use_faster_layers(other)
    assert_same(plain, other, make_maps(21, 24, *map_size), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch", [1, 8, 16, 37])
@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 2), (2, 1), (3, 3)])
def test_the_gram_product_gives_torchs_gradients(dtype, batch, size, stride, padding):
    kernel_size = (min(5, size + 2 * padding), 3 if size + 2 * padding >= 3 else 2)
    options = {"stride": (stride, stride), "padding": (padding, padding)}
    inputs = (
        make_maps(batch, 6, size, size, dtype=dtype),
        make_maps(6, 1, *kernel_size, dtype=dtype, seed=1),
        torch.randn(6, dtype=dtype, requires_grad=True),
    )
    expected = gradients(lambda *t: F.conv2d(*t, **options, groups=6), torch.cos, *inputs)
    found = gradients(lambda *t: depthwise_conv2d(*t, **options), torch.cos, *inputs)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_the_relative_error_is_one_of_rounding():
    images = make_maps(128, 240, 4, 4)
    weight = make_maps(240, 1, 5, 5, seed=1)
    exact = [t.detach().double().requires_grad_() for t in (images, weight)]
    options = {"stride": (1, 1), "padding": (2, 2)}
    *_, found = gradients(lambda *t: depthwise_conv2d(*t, **options), torch.sign, images, weight)
    *_, expected = gradients(lambda *t: F.conv2d(*t, **options, groups=240), torch.sign, *exact)
    assert (found - expected).abs().max() / expected.abs().max() < 3e-6


def test_maps_that_are_not_channels_last_are_taken_too():
    images = torch.randn(18, 4, 3, 3).contiguous().requires_grad_()
    weight = torch.randn(4, 1, 3, 3, requires_grad=True)
    options = {"stride": (1, 1), "padding": (1, 1)}
    expected = gradients(lambda *t: F.conv2d(*t, **options, groups=4), torch.cos, images, weight)
    found = gradients(lambda *t: depthwise_conv2d(*t, **options), torch.cos, images, weight)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_it_can_be_differentiated_twice():
    inputs = (
        make_maps(3, 2, 3, 3, dtype=torch.float64),
        make_maps(2, 1, 3, 3, dtype=torch.float64, seed=1),
        torch.randn(2, dtype=torch.float64, requires_grad=True),
    )

    def function(*tensors):
        return depthwise_conv2d(*tensors, stride=(2, 1), padding=(1, 1))

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.fixture
def grams(monkeypatch):
    """The shapes of the inputs whose weight gradients came from Gram products."""
    shapes = []
    gram = layers._gram

    def note(input, gradient):
        shapes.append(tuple(input.shape))
        return gram(input, gradient)

    monkeypatch.setattr(layers, "_gram", note)
    return shapes


def train_step(layer, images):
    layer(images).sum().backward()


def make_depthwise(side=5, stride=1, **options):
    layer = nn.Conv2d(8, 8, side, stride, side // 2, groups=8, **options)
    use_faster_layers(layer)
    return layer


@pytest.mark.parametrize(
    ("side", "stride", "size", "batch", "is_taken"),
    [
        (3, 1, 2, 16, True),
        (3, 1, 3, 16, False),
        (3, 2, 3, 16, True),
        (3, 2, 4, 16, False),
        (5, 1, 8, 16, True),
        (5, 1, 9, 16, False),
        (5, 2, 16, 16, False),
        (7, 1, 8, 16, True),
        (9, 1, 8, 16, True),
        (5, 1, 4, 15, False),
        (5, 1, 1, 16, False),
    ],
)
def test_the_rule_goes_by_the_shape(grams, side, stride, size, batch, is_taken):
    train_step(make_depthwise(side, stride), make_maps(batch, 8, size, size))
    assert grams == ([(batch, 8, size, size)] if is_taken else [])


def test_nothing_is_computed_for_weights_that_do_not_learn(grams):
    layer = make_depthwise()
    layer.weight.requires_grad_(False)
    images = make_maps(16, 8, 4, 4)
    train_step(layer, images)
    assert images.grad is not None
    with torch.no_grad():
        make_depthwise()(images)
    assert grams == []


def test_autocast_and_other_precisions_keep_torchs_kernels(grams):
    images = make_maps(16, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = make_depthwise()(images)
    assert outputs.dtype == torch.bfloat16
    outputs.float().sum().backward()
    train_step(make_depthwise().bfloat16(), images.detach().bfloat16())
    assert grams == []


def test_autocast_reaches_a_pointwise_convolution():
    layer = nn.Conv2d(8, 4, 1)
    use_faster_layers(layer)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(make_maps(2, 8, 4, 4)).dtype == torch.bfloat16


def test_outputs_stay_channels_last():
    for layer in (nn.Conv2d(8, 16, 1), make_depthwise()):
        use_faster_layers(layer)
        outputs = layer.to(memory_format=torch.channels_last)(make_maps(16, 8, 4, 4))
        assert outputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "efficientnet_b0"])
def test_a_network_keeps_its_weights_its_answers_and_its_gradients(name, grams):
    torch.manual_seed(0)
    plain = timm.create_model(name, pretrained=False, num_classes=10, drop_rate=0.0).double()
    plain.conv_stem.stride = (1, 1)
    other = copy.deepcopy(plain)
    use_faster_layers(other)
    assert sum(type(module) is SmallMapConv2d for module in other.modules()) > 20
    assert [name for name, _ in other.named_modules()] == [n for n, _ in plain.named_modules()]
    assert list(other.state_dict()) == list(plain.state_dict())
    images = torch.randn(16, 3, 32, 32).to(memory_format=torch.channels_last)
    assert_same(plain.eval(), other.eval(), images.double().requires_grad_())
    # In float32, as it is trained, with the Gram products.
    single, exact = other.float().train(), plain.train()
    labels = torch.arange(16) % 10
    for net, inputs in ((single, images), (exact, images.double())):
        net.zero_grad()
        F.cross_entropy(net(inputs), labels).backward()
    assert len(grams) >= 8
    pairs = zip(single.parameters(), exact.parameters(), strict=True)
    found, expected = (
        torch.cat([p.grad.flatten().double() for p in side]) for side in zip(*pairs, strict=True)
    )
    assert F.cosine_similarity(found, expected, dim=0) > 1 - 1e-6


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_compiled_network_learns_the_same():
    layer = make_depthwise()
    images = make_maps(16, 8, 4, 4)
    train_step(layer, images)
    expected = layer.weight.grad.clone()
    layer.weight.grad = None
    torch._dynamo.reset()
    train_step(torch.compile(layer, backend="aot_eager", dynamic=False), images)
    torch.testing.assert_close(layer.weight.grad, expected)


@pytest.mark.parametrize("activation", [nn.Hardswish, nn.SiLU, nn.Mish])
def test_activations_do_not_overwrite_what_autograd_keeps(activation):
    layer = activation(inplace=True)
    use_faster_layers(layer)
    values = torch.linspace(-4, 4, 9)
    before = values.clone()
    torch.testing.assert_close(layer(values), activation()(before))
    assert torch.equal(values, before)


def test_an_activation_that_keeps_its_output_may_overwrite_its_input():
    layer = nn.ReLU(inplace=True)
    use_faster_layers(layer)
    assert layer.inplace


def test_other_convolutions_stay_as_they_are():
    net = nn.Sequential(
        nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 2, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
    )
    use_faster_layers(net)
    assert {type(module) for module in net} == {nn.Conv2d}


def test_the_taps_by_hand():
    taps = layers._taps((1, 2), (1, 3), (1, 1), (0, 1))
    # Two positions in a row: input i meets output o through tap i - o + 1.
    expected = torch.zeros(2, 2, 3)
    for i, o in itertools.product(range(2), range(2)):
        expected[i, o, i - o + 1] = 1
    assert torch.equal(taps, expected.flatten(0, 1))
