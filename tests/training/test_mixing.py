"""Mixup and CutMix: by hand in numpy, evenly drawn, the same in any batch."""

import numpy as np
import pytest
import scipy.stats
import torch

from distillation.training.hashing import Draws
from distillation.training.mixing import Mixture, draw_mixture, draw_partners, mix

HEIGHT, WIDTH = 9, 12
BOTH = {"mixup": 0.4, "cutmix": 1.0}
OPTIONS = {
    "mixup": {"mixup": 1.0, "cutmix": 0.0},
    "cutmix": {"mixup": 0.0, "cutmix": 1.0},
    "both": BOTH,
}


def draws(samples, view_number=0, seed=7):
    return Draws(seed=seed, samples=torch.as_tensor(samples), view_number=view_number)


def mixture(samples, *, height=HEIGHT, width=WIDTH, view_number=0, **changes):
    options = {**OPTIONS["both"], **changes}
    return draw_mixture(draws(samples, view_number), height=height, width=width, **options)


def views(count, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, HEIGHT, WIDTH, 3), generator=generator)
    return images.to(torch.uint8).permute(0, 3, 1, 2)


# The pixels


@pytest.mark.parametrize("option", OPTIONS)
def test_mixed_pixels_are_the_weighted_mean_rounded(option):
    own, partners = views(50, 1), views(50, 2)
    drawn = mixture(range(50), **OPTIONS[option])
    found = mix(own, partners, drawn)
    weights = drawn.weights.numpy().transpose(0, 3, 1, 2) / 256
    mean = weights * own.numpy().astype(float) + (1 - weights) * partners.numpy().astype(float)
    assert np.array_equal(found.numpy(), np.floor(mean + 0.5).astype(np.uint8))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.dtype == torch.uint8


def test_every_pair_of_levels_and_every_weight():
    levels = torch.arange(256)
    own, other = (grid.flatten() for grid in torch.meshgrid(levels, levels, indexing="ij"))
    for weight in range(128, 257):
        drawn = Mixture(weights=torch.full((1, 1, 1, 1), weight), shares=torch.ones(1))
        pair = [one.to(torch.uint8).view(1, 1, 1, -1).expand(1, 3, 1, -1) for one in (own, other)]
        expected = (own * weight + other * (256 - weight) + 128) >> 8
        assert torch.equal(mix(*pair, drawn)[0, 0, 0].long(), expected)


def test_the_views_are_left_as_they_were():
    own, partners = views(5, 1), views(5, 2)
    before = own.clone(), partners.clone()
    mix(own, partners, mixture(range(5)))
    assert torch.equal(own, before[0])
    assert torch.equal(partners, before[1])


def test_cutmix_replaces_one_box_by_the_partner():
    own, partners = torch.zeros(200, 3, 20, 20), torch.full((200, 3, 20, 20), 200)
    drawn = mixture(range(200), height=20, width=20, mixup=0.0)
    found = mix(own.to(torch.uint8), partners.to(torch.uint8), drawn)[:, 0].numpy()
    assert set(np.unique(found)) == {0, 200}
    for picture, share in zip(found == 200, drawn.shares.tolist(), strict=True):
        rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
        assert picture.sum() == len(rows) * len(columns)
        if len(rows):
            assert rows[-1] - rows[0] + 1 == len(rows)
            assert columns[-1] - columns[0] + 1 == len(columns)
        assert share == pytest.approx(1 - picture.mean(), abs=1e-6)


# The shares


@pytest.mark.parametrize("option", OPTIONS)
def test_the_share_is_the_mean_weight_and_never_below_a_half(option):
    drawn = mixture(range(2000), **OPTIONS[option])
    weights = drawn.weights.expand(-1, HEIGHT, WIDTH, 1).float() / 256
    torch.testing.assert_close(weights.mean(dim=(1, 2, 3)), drawn.shares)
    assert drawn.shares.dtype == torch.float32
    assert drawn.shares.min() >= 0.5
    assert drawn.shares.max() <= 1.0


@pytest.mark.parametrize("concentration", [0.1, 0.2, 0.4, 1.0, 2.0, 50.0])
def test_mixups_shares_are_the_larger_ones_of_a_beta_distribution(concentration):
    drawn = mixture(range(20_000), mixup=concentration, cutmix=0.0)
    found = (256 * drawn.shares).round().int().numpy()
    assert np.array_equal(found / 256, drawn.shares.numpy())
    expected = np.random.default_rng(0).beta(concentration, concentration, 200_000)
    expected = np.rint(256 * np.maximum(expected, 1 - expected)).astype(int)
    # By quantiles of about a tenth, which are whole steps of 1/256.
    edges = np.unique([127, *np.quantile(expected, np.linspace(0.1, 0.9, 9)).astype(int), 256])
    counts = [np.histogram(values, edges + 0.5)[0] for values in (found, expected)]
    # The draw is fixed by the seed: it passes always or never.
    assert scipy.stats.chi2_contingency(np.stack(counts)).pvalue > 1e-3


def test_cutmixs_boxes_have_the_share_that_mixup_would_have():
    """Where nothing is cut off, as far as whole and even sides go."""
    shares = mixture(range(500), height=200, width=200, mixup=1.0, cutmix=0.0).shares
    boxes = mixture(range(500), height=200, width=200, mixup=0.0, cutmix=1.0)
    replaced = (boxes.weights == 0)[..., 0]
    touches_border = replaced[:, [0, -1]].any(dim=(1, 2)) | replaced[:, :, [0, -1]].any(dim=(1, 2))
    assert 0.05 < (~touches_border).float().mean() < 0.9
    difference = boxes.shares - shares
    assert difference[~touches_border].abs().max() < 0.02
    assert difference.min() > -1e-6  # what is cut off adds to the sample's share


def test_with_both_a_half_of_the_views_is_mixed_either_way():
    drawn = mixture(range(10_000), height=32, width=32)
    mixup, cutmix = (
        mixture(range(10_000), height=32, width=32, **{name: 0.0}) for name in ("cutmix", "mixup")
    )
    is_mixup, is_cutmix = (
        (drawn.weights == one.weights.expand_as(drawn.weights)).all(dim=(1, 2, 3))
        for one in (mixup, cutmix)
    )
    assert bool((is_mixup | is_cutmix).all())
    # Shares that round to 1 or boxes of no pixel look alike.
    assert abs((is_mixup & ~is_cutmix).float().mean() - 0.5) < 0.15
    assert abs((is_cutmix & ~is_mixup).float().mean() - 0.5) < 0.15
    assert torch.equal(drawn.shares[~is_cutmix], mixup.shares[~is_cutmix])
    assert torch.equal(drawn.shares[~is_mixup], cutmix.shares[~is_mixup])


# The partners


def test_partners_are_drawn_evenly_among_the_samples_there_are():
    candidates = torch.arange(20) * 5 + 2
    found = draw_partners(draws(range(20_000)), candidates)
    assert set(found.tolist()) == set(candidates.tolist())
    assert scipy.stats.chisquare(np.bincount((found.numpy() - 2) // 5)).pvalue > 1e-3
    assert draw_partners(draws([3, 4]), torch.tensor([9])).tolist() == [9, 9]


def test_partners_change_with_the_view_and_the_seed():
    first = draw_partners(draws(range(1000)), torch.arange(1000))
    for other in (draws(range(1000), view_number=1), draws(range(1000), seed=8)):
        assert (draw_partners(other, torch.arange(1000)) == first).sum() < 10


# Repeatability


@pytest.mark.parametrize("option", OPTIONS)
def test_a_mixture_does_not_depend_on_the_batch(option):
    everything = mixture(range(100), view_number=4, **OPTIONS[option])
    samples = [40, 2, 2, 99]
    found = mixture(samples, view_number=4, **OPTIONS[option])
    assert torch.equal(found.weights, everything.weights[samples])
    assert torch.equal(found.shares, everything.shares[samples])
    numbers = torch.tensor([4, 5, 4])
    one_by_one = mixture([7, 7, 8], view_number=numbers, **OPTIONS[option])
    assert torch.equal(one_by_one.weights[[0, 2]], everything.weights[[7, 8]])
    assert torch.equal(
        one_by_one.weights[1], mixture([7], view_number=5, **OPTIONS[option]).weights[0]
    )


@pytest.mark.gpu
@pytest.mark.parametrize("option", OPTIONS)
def test_a_mixture_is_the_same_on_a_gpu(option):
    samples, own, partners = torch.arange(300), views(300, 1), views(300, 2)
    drawn = mixture(samples, **OPTIONS[option])
    on_gpu = mixture(samples.cuda(), **OPTIONS[option])
    assert torch.equal(on_gpu.shares.cpu(), drawn.shares)
    found = mix(own.cuda(), partners.cuda(), on_gpu)
    assert torch.equal(found.cpu(), mix(own, partners, drawn))
