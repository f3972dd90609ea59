"""Augmented views: exact pixels, repeatable and evenly drawn."""

import dataclasses
import hashlib

import numpy as np
import pytest
import scipy.stats
import torch

from distillation.training.coloring import jitter_colors
from distillation.training.cropping import ResizedCrop
from distillation.training.hashing import Draws
from distillation.training.views import (
    ViewSettings,
    augment,
    random_bits,
    view_of_epoch,
    views_of_passes,
)

SETTINGS = ViewSettings(view_seed=11, crop_padding=3, horizontal_flip=True)


def make_images(count=6, height=9, width=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator).to(torch.uint8)


def settings(**changes):
    return dataclasses.replace(SETTINGS, **changes)


def views(images, samples, view_number=0, **changes):
    """The views of some samples of a data set."""
    samples = torch.as_tensor(samples, dtype=torch.int64)
    return augment(images[samples], samples, view_number, settings=settings(**changes))


# The generator


def reference_bits(seed, sample, view_number, stream):
    """The same hash in Python's integers: MurmurHash3's finaliser after every number."""

    def scramble(bits):
        bits = (bits ^ (bits >> 16)) * 0x85EBCA6B % 2**32
        bits = (bits ^ (bits >> 13)) * 0xC2B2AE35 % 2**32
        return bits ^ (bits >> 16)

    bits = scramble(seed % 2**32)
    for value in (sample, view_number, stream):
        bits = scramble((bits * 5 + value + 0x9E3779B9) % 2**32)
    return bits


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31 - 1, 2**32 - 1, 2**40 + 3])
@pytest.mark.parametrize("view_number", [0, 1, 999, 2**31 - 1])
@pytest.mark.parametrize("stream", [1, 3])
def test_random_bits_match_plain_integers(seed, view_number, stream):
    samples = [0, 1, 2, 3, 49_999, 1_281_166, 2**31 - 1, *range(1000, 1200)]
    found = random_bits(seed, torch.tensor(samples), view_number, stream)
    assert found.dtype == torch.int64
    assert found.tolist() == [reference_bits(seed, s, view_number, stream) for s in samples]


def test_random_bits_match_uint64_arithmetic_for_many_samples():
    samples = np.arange(100_000, dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)

    def scramble(bits):
        bits = (bits ^ (bits >> np.uint64(16))) * np.uint64(0x85EBCA6B) & mask
        bits = (bits ^ (bits >> np.uint64(13))) * np.uint64(0xC2B2AE35) & mask
        return bits ^ (bits >> np.uint64(16))

    bits = scramble(np.full_like(samples, 7))
    for value in (samples, np.uint64(5), np.uint64(2)):
        bits = scramble((bits * np.uint64(5) + value + np.uint64(0x9E3779B9)) & mask)
    found = random_bits(7, torch.arange(100_000), 5, 2)
    assert np.array_equal(found.numpy().astype(np.uint64), bits)


def test_every_bit_is_even_and_the_argument_order_matters():
    found = random_bits(3, torch.arange(20_000), 1, 2)
    assert found.min() >= 0
    assert found.max() < 2**32
    for bit in range(32):
        # 5 standard deviations of a fair coin.
        assert abs(((found >> bit) & 1).double().mean().item() - 0.5) < 5 * 0.5 / 20_000**0.5
    one, two = torch.tensor([1]), torch.tensor([2])
    drawn = [
        random_bits(seed, sample, view, stream).item()
        for seed in (1, 2)
        for sample in (one, two)
        for view in (1, 2)
        for stream in (1, 2)
    ]
    assert len(set(drawn)) == 16


# The pixels


def all_windows(image, padding):
    """Every shifted window of an image, reflected at the border, by (row, column, flipped)."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    found = {}
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            window = padded[row : row + height, column : column + width]
            found[row, column, False] = window
            found[row, column, True] = window[:, ::-1]
    return found


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("padding", "height", "width"), [(1, 4, 4), (3, 9, 12), (3, 12, 9), (4, 5, 5)]
)
def test_views_are_exact_windows_of_the_reflected_image(padding, height, width, flip):
    images = make_images(8, height, width)
    for view_number in range(4):
        batch = views(
            images, range(8), view_number, crop_padding=padding, horizontal_flip=flip
        ).permute(0, 2, 3, 1)
        for sample in range(8):
            # With the largest padding an image and its mirror share windows, so more than one
            # may match.
            matches = [
                is_flipped
                for (_, _, is_flipped), window in all_windows(
                    images[sample].numpy(), padding
                ).items()
                if np.array_equal(window, batch[sample].numpy())
            ]
            assert matches
            assert flip or False in matches


def test_the_drawn_numbers_are_those_of_the_hash():
    """Offset = bits · (2 · padding + 1) / 2³², rows from stream 1, columns 2, the flip 3."""
    images = make_images(5)
    batch = views(images, range(5), 6).permute(0, 2, 3, 1)
    for sample in range(5):
        row, column, flip = (
            reference_bits(11, sample, 6, stream) * count >> 32
            for stream, count in ((1, 7), (2, 7), (3, 2))
        )
        window = all_windows(images[sample].numpy(), 3)[row, column, flip == 1]
        assert np.array_equal(batch[sample].numpy(), window)


def test_without_padding_and_flip_the_images_come_back():
    images = make_images()
    samples = [4, 0, 4, 2]
    batch = views(images, samples, crop_padding=0, horizontal_flip=False)
    assert torch.equal(batch, images[samples].permute(0, 3, 1, 2))


def test_a_flip_alone_gives_the_image_or_its_mirror():
    images = make_images(40)
    batch = views(images, range(40), crop_padding=0)
    upright = images.permute(0, 3, 1, 2)
    is_same = [torch.equal(a, b) for a, b in zip(batch, upright, strict=True)]
    is_mirror = [torch.equal(a, b.flip(2)) for a, b in zip(batch, upright, strict=True)]
    assert all(a != b for a, b in zip(is_same, is_mirror, strict=True))
    assert any(is_same)
    assert any(is_mirror)


def test_layout():
    batch = views(make_images(), [1, 2, 3])
    assert batch.shape == (3, 3, 9, 12)
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_the_images_are_left_as_they_were():
    images = make_images()
    before = images.clone()
    for changes in ({}, {"crop_padding": 0, "horizontal_flip": False}):
        augment(images, torch.arange(6), 0, settings=settings(**changes)).zero_()
        assert torch.equal(images, before)


# Repeatability


def test_views_repeat_whatever_the_global_generator():
    images = make_images()
    torch.manual_seed(0)
    first = views(images, range(6), 2)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(views(images, range(6), 2), first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("samples", [[5, 3, 0, 1, 2, 4], [2], [1, 1, 5], []])
def test_views_do_not_depend_on_the_batch(samples):
    images = make_images()
    everything = views(images, range(6), 3)
    batch = views(images, samples, 3)
    assert torch.equal(batch, everything[samples])


@pytest.mark.parametrize(("number", "seed"), [(1, 11), (0, 12)])
def test_views_differ_between_numbers_and_seeds(number, seed):
    images = make_images(60)
    first, second = views(images, range(60)), views(images, range(60), number, view_seed=seed)
    is_same = [torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    # By chance 1 in 98 is the same; 6 or more of 60 would be one in 10⁴.
    assert sum(is_same) < 6


def test_views_differ_between_samples():
    """One picture as many samples: nearly every one of the 98 possible views is seen."""
    image = make_images(1)
    batch = views(image.expand(1000, -1, -1, -1), range(1000))
    assert len({view.numpy().tobytes() for view in batch}) >= 95


def test_the_sample_and_not_the_place_in_the_batch_decides():
    """The same picture under another sample's number is shown as that sample would be."""
    image = make_images(1)
    for sample in (0, 3, 49_999, 2**31 + 5):
        alone = augment(image, torch.tensor([sample]), 2, settings=SETTINGS)
        last = augment(
            make_images(1).expand(4, -1, -1, -1),
            torch.tensor([7, 8, 9, sample]),
            2,
            settings=SETTINGS,
        )
        assert torch.equal(alone[0], last[3])


# Which view an epoch shows


@pytest.mark.parametrize(
    ("num_views", "seed", "expected"),
    [
        (1, 0, [0, 0, 0, 0, 0, 0]),
        (1, 5, [0, 0, 0, 0, 0, 0]),
        (4, 0, [0, 1, 2, 3, 0, 1]),
        (4, 1, [1, 2, 3, 0, 1, 2]),
        (4, 7, [3, 0, 1, 2, 3, 0]),
        (10, 0, [0, 1, 2, 3, 4, 5]),
        (3, 2**31 - 1, [1, 2, 0, 1, 2, 0]),  # 2³¹ − 1 leaves 1
    ],
)
def test_epochs_show_the_views_in_turn_from_a_start_the_seed_sets(num_views, seed, expected):
    found = [view_of_epoch(epoch, num_views=num_views, seed=seed) for epoch in range(6)]
    assert found == expected


@pytest.mark.parametrize(
    ("num_drawn", "num_samples", "epoch", "seed", "expected"),
    [
        (7, 3, 0, 0, [0, 0, 0, 1, 1, 1, 2]),
        (7, 3, 1, 0, [3, 3, 3, 4, 4, 4, 5]),
        (6, 3, 2, 10, [14, 14, 14, 15, 15, 15]),
        (3, 3, 4, 0, [4, 4, 4]),
        (4, 1, 1, 0, [4, 5, 6, 7]),
    ],
)
def test_views_of_passes_by_hand(num_drawn, num_samples, epoch, seed, expected):
    found = views_of_passes(num_drawn, num_samples, epoch=epoch, seed=seed)
    assert found.dtype == torch.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("num_samples", range(1, 8))
@pytest.mark.parametrize("num_drawn", [7, 8, 9, 20, 23])
def test_no_pass_repeats_a_view_of_any_epoch(num_samples, num_drawn):
    """The samples come in whole passes: position modulo their number stands for a sample."""
    seen = []
    for epoch in range(5):
        numbers = views_of_passes(num_drawn, num_samples, epoch=epoch, seed=3).tolist()
        # The samples of a pass come in any order: what counts is that they share its number.
        passes = [numbers[i : i + num_samples] for i in range(0, num_drawn, num_samples)]
        assert all(len(set(one)) == 1 for one in passes)
        seen += [one[0] for one in passes]
    assert len(set(seen)) == len(seen)


def test_each_image_may_have_a_view_number_of_its_own():
    images, samples = make_images(), torch.tensor([0, 1, 2, 3, 4, 5, 0, 0])
    numbers = torch.tensor([0, 1, 2, 3, 70_000, 2**31 - 1, 5, 6])
    found = views(images, samples, numbers)
    for image, sample, number in zip(found, samples.tolist(), numbers.tolist(), strict=True):
        assert torch.equal(image, views(images, [sample], number)[0])
    assert torch.equal(views(images, range(6), torch.full((6,), 4)), views(images, range(6), 4))
    bits = random_bits(3, samples, numbers, 1).tolist()
    assert bits == [
        reference_bits(3, sample, number, 1)
        for sample, number in zip(samples.tolist(), numbers.tolist(), strict=True)
    ]


# Evenness


def drawn_offsets(view_number, count=9800):
    """The row, column and flip of many samples, read off a picture that shows its coordinates."""
    size = 20
    steps = torch.arange(size, dtype=torch.uint8)
    image = torch.stack([*torch.meshgrid(steps, steps, indexing="ij"), torch.zeros(size, size)], -1)
    images = image.to(torch.uint8).expand(count, -1, -1, -1)
    batch = views(images, range(count), view_number).int()
    row = batch[:, 0, 10, 0] - 10 + 3
    is_flipped = batch[:, 1, 0, 10] > batch[:, 1, 0, 11]
    shifted = torch.where(is_flipped, batch[:, 1, 0, 9], batch[:, 1, 0, 10])
    return row.numpy(), (shifted - 10 + 3).numpy(), is_flipped.int().numpy()


@pytest.mark.parametrize("view_number", [0, 1, 37])
def test_offsets_and_flips_are_uniform_and_independent(view_number):
    row, column, flip = drawn_offsets(view_number)
    assert (row.min(), row.max(), column.min(), column.max()) == (0, 6, 0, 6)
    cells = np.bincount((row * 7 + column) * 2 + flip, minlength=98)
    assert cells.shape == (98,)
    for counts in (np.bincount(row), np.bincount(column), np.bincount(flip), cells):
        # The draw is fixed by the seed: it passes always or never.
        assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_consecutive_views_and_samples_are_independent():
    first, second = drawn_offsets(0)[0], drawn_offsets(1)[0]
    for left, right in ((first, second), (first[:-1], first[1:])):
        table = np.bincount(left * 7 + right, minlength=49).reshape(7, 7)
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-3


# The bits


def test_shifted_views_are_those_they_have_always_been():
    """Stored outputs and resumed trainings depend on them: sha256 of a few views."""
    numbers = torch.arange(40 * 9 * 12 * 3) * 2654435761 >> 7
    images = numbers.remainder(256).to(torch.uint8).view(40, 9, 12, 3)
    samples = torch.arange(40) * 1000
    found = [
        hashlib.sha256(
            augment(images, samples, view, settings=SETTINGS).permute(0, 2, 3, 1).numpy().tobytes()
        ).hexdigest()
        for view in (0, 5, torch.arange(40) + 2**31)
    ]
    assert found == [
        "b806158a13587ea475979813b7bfd3af64c66e80430accde5315020cde6f28fc",
        "c7e77c0dfbb2ee79f27ce57df7c979a213c251c8c796448c0268b764195fcf09",
        "15d9baf878e9a62fe4fb2d2fe2a9e0f9ba26c2110edbd6dd2ac55ed9559ab3c7",
    ]


# With resized crops and colour jitter

CROP = ResizedCrop(
    size=7, min_area=0.2, max_area=1.0, min_aspect=0.5, max_aspect=2.0, interpolation="bicubic"
)
RICHER = {
    "bilinear": {"resized_crop": dataclasses.replace(CROP, interpolation="bilinear")},
    "bicubic": {"resized_crop": CROP},
    "jitter": {"color_jitter": 0.6},
    "both": {"resized_crop": CROP, "color_jitter": 1.0},
}


@pytest.mark.parametrize("option", RICHER)
def test_richer_views_do_not_depend_on_the_batch(option):
    images = make_images(20, 9, 9)
    everything = views(images, range(20), 3, **RICHER[option])
    for samples in ([5, 3, 19, 0], [2], [1, 1, 5], list(reversed(range(20)))):
        assert torch.equal(views(images, samples, 3, **RICHER[option]), everything[samples])
    numbers = torch.tensor([3, 4, 2**31 - 1])
    found = views(images, [7, 7, 7], numbers, **RICHER[option])
    for view, number in zip(found, numbers.tolist(), strict=True):
        assert torch.equal(view, views(images, [7], number, **RICHER[option])[0])
    assert len({view.numpy().tobytes() for view in found}) == 3


@pytest.mark.parametrize("option", RICHER)
def test_richer_views_have_the_layout_of_others(option):
    images = make_images(4, 9, 9)
    before = images.clone()
    found = views(images, range(4), **RICHER[option])
    size = 9 if option == "jitter" else 7
    assert found.shape == (4, 3, size, size)
    assert found.dtype == torch.uint8
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_the_flip_is_the_same_decision_for_both_crops():
    """Of the whole image, resampled to its own size, nothing but the flip is left."""
    images = make_images(30, 9, 9)
    whole = ResizedCrop(
        size=9, min_area=1.0, max_area=1.0, min_aspect=1.0, max_aspect=1.0, interpolation="bicubic"
    )
    found = views(images, range(30), 4, resized_crop=whole)
    assert torch.equal(found, views(images, range(30), 4, crop_padding=0))


def test_jitter_comes_after_the_crop():
    images = make_images(10, 9, 9)
    plain = views(images, range(10), 2).permute(0, 2, 3, 1)
    draws = Draws(seed=11, samples=torch.arange(10), view_number=2)
    expected = jitter_colors(plain, draws, strength=0.6).permute(0, 3, 1, 2)
    assert torch.equal(views(images, range(10), 2, color_jitter=0.6), expected)
    assert not torch.equal(expected, plain.permute(0, 3, 1, 2))


@pytest.fixture
def matmul_precision():
    """Return what sets how float32 matrices are multiplied, until the test ends."""
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


@pytest.mark.gpu
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("option", RICHER)
def test_richer_views_are_the_same_on_a_gpu(option, tf32, matmul_precision):
    matmul_precision("high" if tf32 else "highest")
    images, samples = make_images(50, 20, 20), torch.arange(50)
    expected = augment(images, samples, 1, settings=settings(**RICHER[option]))
    found = augment(images.cuda(), samples.cuda(), 1, settings=settings(**RICHER[option]))
    assert torch.equal(found.cpu(), expected)
