"""Colour jitter: torchvision's blends in whole numbers."""

import numpy as np
import pytest
import scipy.stats
import torch
from torchvision.transforms import functional as tv

from distillation.training.coloring import jitter_colors
from distillation.training.hashing import Draws, Stream

COUNT = 40


def make_images(count=COUNT):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 6, 7, 3), generator=generator).to(torch.uint8)


def draws(count=COUNT, view_number=0):
    return Draws(seed=5, samples=torch.arange(count), view_number=view_number)


def factors(stream, strength, count=COUNT):
    """The factors in 256ths, from the hash."""
    reach = round(256 * strength)
    return (draws(count).bits(stream) * (2 * reach + 1) >> 32) + 256 - reach


@pytest.mark.parametrize("strength", [0.2, 0.4, 1.0])
def test_colors_are_torchvisions_to_a_few_levels(strength):
    """Its blends cut off instead of rounding, and its grey has other weights: by a level each."""
    images = make_images()
    found = jitter_colors(images, draws(), strength=strength)
    streams = (Stream.BRIGHTNESS, Stream.CONTRAST, Stream.SATURATION)
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for index, image in enumerate(images):
        expected = image.permute(2, 0, 1)
        for stream, function in zip(streams, adjust, strict=True):
            expected = function(expected, float(factors(stream, strength)[index]) / 256)
        difference = found[index].int() - expected.permute(1, 2, 0).int()
        assert difference.abs().max() <= 6
        assert difference.abs().float().mean() < 3


def test_a_pixel_by_hand():
    """One pixel: its grey is the mean grey, in whole numbers throughout."""
    image = torch.tensor([[[[200, 100, 50]]]], dtype=torch.uint8)
    brightness, contrast, saturation = (
        int(factors(stream, 0.5, 1)[0])
        for stream in (Stream.BRIGHTNESS, Stream.CONTRAST, Stream.SATURATION)
    )

    def blend(values, other, factor):
        blended = [(v * factor + other * (256 - factor) + 128) // 256 for v in values]
        return [min(max(v, 0), 255) for v in blended]

    def gray(values):
        return (77 * values[0] + 150 * values[1] + 29 * values[2] + 128) // 256

    expected = blend([200, 100, 50], 0, brightness)
    expected = blend(expected, gray(expected), contrast)
    expected = blend(expected, gray(expected), saturation)
    assert jitter_colors(image, draws(1), strength=0.5).flatten().tolist() == expected


def test_gray_images_stay_gray_and_no_strength_changes_nothing():
    images = make_images()
    assert torch.equal(jitter_colors(images, draws(), strength=0.0), images)
    gray = images[..., :1].expand(-1, -1, -1, 3)
    found = jitter_colors(gray, draws(), strength=1.0)
    assert torch.equal(found, found[..., :1].expand(-1, -1, -1, 3))
    assert not torch.equal(found, gray)


def test_factors_are_even_and_independent():
    found = [
        factors(stream, 0.25, 5000).numpy()
        for stream in (Stream.BRIGHTNESS, Stream.CONTRAST, Stream.SATURATION)
    ]
    for values in found:
        assert (values.min(), values.max()) == (192, 320)
        # The draw is fixed by the seed: it passes always or never.
        assert scipy.stats.chisquare(np.bincount(values - 192)).pvalue > 1e-3
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(found[first], found[second])[0, 1]) < 0.05


def test_the_images_are_left_as_they_were():
    images = make_images()
    before = images.clone()
    jitter_colors(images, draws(), strength=1.0)
    assert torch.equal(images, before)
