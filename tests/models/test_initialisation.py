"""How a network starts: depthwise convolutions near the identity, all else as timm draws it."""

import pytest
import timm
import torch
from torch import nn

from distillation.models.creation import create_classifier
from distillation.models.initialisation import start_near_identity


def drawn_by_timm(name, seed):
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=3)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext2", "mobileone_s0"])
def test_half_of_what_timm_draws_is_kept_beside_the_identity(name):
    net = create_classifier(name, num_classes=3, image_size=32, seed=5).net
    drawn = drawn_by_timm(name, 5)
    num_depthwise = 0
    for (key, parameter), other in zip(net.named_parameters(), drawn.parameters(), strict=True):
        expected = other.detach().clone()
        if other.ndim == 4 and other.shape[1] == 1 and other.shape[2] > 1:
            num_depthwise += 1
            middle = other.shape[2] // 2
            expected *= 0.5
            expected[:, 0, middle, middle] += 1.0
        assert torch.equal(parameter, expected), key
    assert num_depthwise > 1


def test_a_channel_starts_with_its_own_input():
    convolution = nn.Conv2d(16, 16, 5, padding=2, groups=16)
    images = torch.randn(8, 16, 12, 12)
    start_near_identity(convolution)
    with torch.no_grad():
        pair = torch.stack([images.flatten(), convolution(images).flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.7


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 1, groups=4),
        nn.Conv2d(4, 4, 2, groups=4),
        nn.Conv2d(1, 1, 3),
    ],
    ids=["dense", "several of one", "one pixel", "without a middle", "one channel"],
)
def test_others_stay_as_they_are(convolution):
    before = convolution.weight.detach().clone()
    start_near_identity(convolution)
    assert torch.equal(convolution.weight, before)
