import pytest
import timm
import torch
from torch import nn

from distillation.layers import PointwiseConv2d, use_pointwise_convolutions


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [1, 3])
def test_pointwise_convolution_is_the_convolution(bias, size):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 1, bias=bias).double()
    other = PointwiseConv2d(5, 7, 1, bias=bias).double()
    other.load_state_dict(plain.state_dict())
    images = torch.randn(4, 5, size, size, dtype=torch.float64, requires_grad=True)
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
        use_pointwise_convolutions(net)
        found = net(images)
    assert sum(type(module) is PointwiseConv2d for module in net.modules()) > 20
    assert list(net.state_dict()) == list(before)
    assert all(net.state_dict()[key] is not None for key in before)
    assert torch.allclose(found, expected, atol=1e-5)


def test_other_convolutions_stay_as_they_are():
    net = nn.Sequential(
        nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 4, 1, groups=4),
        nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, 3),
    )
    use_pointwise_convolutions(net)
    assert {type(module) for module in net} == {nn.Conv2d}
