import copy

import pytest
import timm
import torch
from torch import nn

from distillation.layers import SinglePixelConv2d, use_single_pixel_convolutions


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        ((5, 7), {"kernel_size": 1}),
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
    use_single_pixel_convolutions(other)
    assert type(other) is SinglePixelConv2d
    images = torch.randn(4, channels[0], size, size, dtype=torch.float64, requires_grad=True)
    twins = images.detach().clone().requires_grad_()
    expected, found = plain(images), other(twins)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    assert torch.allclose(twins.grad, images.grad)
    for first, second in zip(plain.parameters(), other.parameters(), strict=True):
        assert torch.allclose(first.grad, second.grad)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "efficientnet_b0"])
def test_a_network_keeps_its_weights_and_its_answers(name):
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False, num_classes=10).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
        before = dict(net.state_dict())
        use_single_pixel_convolutions(net)
        found = net(images)
    assert sum(type(module) is SinglePixelConv2d for module in net.modules()) > 20
    assert list(net.state_dict()) == list(before)
    assert all(net.state_dict()[key] is not None for key in before)
    assert torch.allclose(found, expected, atol=1e-5)


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
    use_single_pixel_convolutions(net)
    assert {type(module) for module in net} == {nn.Conv2d}
