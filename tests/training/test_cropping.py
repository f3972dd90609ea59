"""Resized crops: Pillow's pixels, torchvision's boxes, exact whole numbers."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from distillation.training.cropping import (
    Boxes,
    ResizedCrop,
    draw_boxes,
    resampling_weights,
    resized_crop,
)
from distillation.training.hashing import Draws

SETTINGS = ResizedCrop(
    size=8, min_area=0.08, max_area=1.0, min_aspect=0.75, max_aspect=4 / 3, interpolation="bilinear"
)
FILTERS = ["bilinear", "bicubic"]


def noise(count, side):
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator).to(torch.uint8)


def boxes_of(count, side, *, view_number=0, **changes):
    draws = Draws(seed=3, samples=torch.arange(count), view_number=view_number)
    return draw_boxes(draws, side, dataclasses.replace(SETTINGS, **changes))


def boxes(*sides):
    """Boxes from (top, left, height, width)."""
    columns = [torch.tensor(column) for column in zip(*sides, strict=True)]
    return Boxes(top=columns[0], left=columns[1], height=columns[2], width=columns[3])


def as_rows(found):
    return torch.stack([found.top, found.left, found.height, found.width], dim=1).tolist()


def pillow(image, box, size, interpolation):
    top, left, height, width = box
    resample = Image.Resampling[interpolation.upper()]
    place = (left, top, left + width, top + height)
    return np.asarray(Image.fromarray(image.numpy()).resize((size, size), resample, box=place))


# The pixels


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("side", "size"), [(32, 32), (40, 16), (8, 24), (61, 48), (128, 9)])
def test_crops_are_pillows_to_a_level_or_two(side, size, interpolation):
    """On noise, the hardest picture there is; nearly all differ by one level or none."""
    images, found_boxes = noise(40, side), boxes_of(40, side)
    found = resized_crop(
        images, found_boxes, is_flipped=None, size=size, interpolation=interpolation
    )
    assert (found.dtype, found.shape) == (torch.uint8, (40, size, size, 3))
    expected = [
        pillow(image, box, size, interpolation)
        for image, box in zip(images, as_rows(found_boxes), strict=True)
    ]
    difference = np.abs(found.numpy().astype(int) - np.stack(expected).astype(int))
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-3
    assert difference.mean() < 0.15


@pytest.mark.parametrize("interpolation", FILTERS)
def test_the_whole_image_at_its_own_size_comes_back(interpolation):
    images = noise(3, 13)
    whole = boxes(*[(0, 0, 13, 13)] * 3)
    found = resized_crop(images, whole, is_flipped=None, size=13, interpolation=interpolation)
    assert torch.equal(found, images)


@pytest.mark.parametrize("interpolation", FILTERS)
def test_a_box_of_the_crops_size_is_cut_out(interpolation):
    images = noise(2, 20)
    found = resized_crop(
        images,
        boxes((3, 5, 7, 7), (13, 0, 7, 7)),
        is_flipped=None,
        size=7,
        interpolation=interpolation,
    )
    assert torch.equal(found[0], images[0, 3:10, 5:12])
    assert torch.equal(found[1], images[1, 13:20, 0:7])


def test_halving_by_hand():
    """Output pixels lie at 1 and 3; those of four at 0.5, 1.5, 2.5 and 3.5 count 1 − |d| / 2."""
    found = resampling_weights(
        torch.tensor([0]),
        torch.tensor([4]),
        torch.arange(2)[None],
        size=2,
        side=4,
        interpolation="bilinear",
    )
    # (3, 3, 1, 0) / 7 and (0, 1, 3, 3) / 7 of 1024.
    assert found.tolist() == [[[439, 439, 146, 0], [0, 146, 439, 439]]]


@pytest.mark.parametrize("interpolation", FILTERS)
def test_flat_images_stay_flat(interpolation):
    images = torch.full((30, 19, 19, 3), 255, dtype=torch.uint8)
    images[:15] = 7
    found = resized_crop(
        images, boxes_of(30, 19), is_flipped=None, size=11, interpolation=interpolation
    )
    assert torch.equal(found, images[:, :11, :11])


def test_a_flip_mirrors_the_crop():
    images, drawn = noise(4, 16), boxes_of(4, 16)
    options = {"size": 9, "interpolation": "bicubic"}
    plain = resized_crop(images, drawn, is_flipped=None, **options)
    is_flipped = torch.tensor([True, False, False, True])
    found = resized_crop(images, drawn, is_flipped=is_flipped, **options)
    expected = torch.where(is_flipped[:, None, None, None], plain.flip(2), plain)
    # Rounding the weights of a row from left to right is not the same from right to left.
    assert torch.equal(found[1:3], expected[1:3])
    assert (found.int() - expected.int()).abs().max() <= 1


# Exactness


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("side", "size"), [(32, 32), (1024, 32), (16, 224), (9, 7)])
def test_weights_are_whole_with_a_fixed_sum_and_few_digits(side, size, interpolation):
    drawn = boxes_of(60, side, min_area=0.001, min_aspect=0.2, max_aspect=5.0)
    outputs = torch.arange(size).expand(60, size)
    for start, length in ((drawn.top, drawn.height), (drawn.left, drawn.width)):
        weights = resampling_weights(
            start, length, outputs, size=size, side=side, interpolation=interpolation
        )
        assert torch.equal(weights, weights.round())
        assert torch.equal(weights.sum(dim=2), torch.full((60, size), 1024.0))
        # TF32 keeps 11 binary digits, and float32 sums up to 2²⁴ exactly.
        assert weights.abs().max() < 2**11
        assert 255 * weights.abs().sum(dim=2).max() + 512 < 2**24


def test_crops_are_those_of_whole_numbers():
    """The same sums in int64."""
    images, drawn = noise(10, 30), boxes_of(10, 30)
    outputs = torch.arange(12).expand(10, 12)
    rows, columns = (
        resampling_weights(start, length, outputs, size=12, side=30, interpolation="bicubic").long()
        for start, length in ((drawn.top, drawn.height), (drawn.left, drawn.width))
    )

    def levels(sums):
        return ((sums + 512) >> 10).clamp(0, 255)

    narrow = levels(torch.einsum("bsx,byxc->bysc", columns, images.long()))
    expected = levels(torch.einsum("bty,bysc->btsc", rows, narrow))
    found = resized_crop(images, drawn, is_flipped=None, size=12, interpolation="bicubic")
    assert torch.equal(found.long(), expected)


def test_autocast_does_not_reach_the_sums():
    images, drawn = noise(6, 20), boxes_of(6, 20)
    options = {"is_flipped": None, "size": 9, "interpolation": "bicubic"}
    expected = resized_crop(images, drawn, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = resized_crop(images, drawn, **options)
    assert torch.equal(found, expected)


# The boxes


def test_boxes_lie_in_the_image_and_have_the_areas_and_aspects_asked_for():
    found = boxes_of(5000, 256, min_area=0.3, max_area=0.6, min_aspect=0.5, max_aspect=2.0)
    for start, length in ((found.top, found.height), (found.left, found.width)):
        assert start.min() >= 0
        assert length.min() >= 1
        assert (start + length).max() <= 256
    area = (found.height * found.width / 256**2).numpy()
    aspect = (found.width / found.height).numpy()
    assert area.min() > 0.295
    assert area.max() < 0.605
    assert aspect.min() > 0.49
    assert aspect.max() < 2.05


def test_areas_aspects_and_places_are_even():
    """Small boxes always fit, so that none is drawn again."""
    found = boxes_of(5000, 1024, min_area=0.05, max_area=0.1, min_aspect=0.5, max_aspect=2.0)
    area = (found.height * found.width / 1024**2).numpy()
    aspect = (found.width / found.height).log2().numpy()
    top = (found.top / (1024 - found.height)).numpy()
    left = (found.left / (1024 - found.width)).numpy()
    uniform = [(area - 0.05) / 0.05, (aspect + 1) / 2, top, left]
    for values in uniform:
        # The draw is fixed by the seed: it passes always or never.
        assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3
    for first in range(4):
        for second in range(first):
            assert abs(np.corrcoef(uniform[first], uniform[second])[0, 1]) < 0.05


def test_boxes_are_distributed_as_torchvisions():
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.zeros(1, 64, 64)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.35, 1.0], [0.75, 4 / 3]) for _ in range(3000)]
    )
    ours = np.array(as_rows(boxes_of(3000, 64, min_area=0.35)))
    for place in range(4):
        assert scipy.stats.ks_2samp(ours[:, place], theirs[:, place]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("aspects", "expected"),
    [
        ((1.0, 1.0), (0, 0, 20, 20)),
        ((0.5, 2.0), (0, 0, 20, 20)),
        ((2.0, 4.0), (5, 0, 10, 20)),
        ((0.25, 0.5), (0, 5, 20, 10)),
    ],
)
def test_where_no_box_fits_it_is_the_largest_in_the_middle(aspects, expected):
    found = boxes_of(
        50, 20, min_area=1.0, max_area=1.0, min_aspect=aspects[0], max_aspect=aspects[1]
    )
    # Of the aspects around 1, some round to a side of 20 pixels: they are all of the image too.
    assert set(map(tuple, as_rows(found))) == {expected}


def test_boxes_have_at_least_one_pixel():
    found = boxes_of(200, 4, min_area=1e-6, max_area=1e-3, min_aspect=0.1, max_aspect=10.0)
    assert found.height.min() == found.width.min() == 1


def test_boxes_differ_between_views_and_do_not_depend_on_the_batch():
    rows = as_rows(boxes_of(100, 64))
    assert rows[:7] == as_rows(boxes_of(7, 64))
    others = as_rows(boxes_of(100, 64, view_number=1))
    assert sum(map(list.__eq__, rows, others)) < 5
    assert math.isclose(np.mean([row[2] for row in rows]), 64 * 0.7, rel_tol=0.1)
