"""The largest class and the classes that are not there."""

import json

import numpy as np
import pytest

from distillation.data.balance import measure_balance


def balance(*counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return measure_balance(np.flip(labels), [f"c{number}" for number in range(len(counts))])


@pytest.mark.parametrize(
    ("counts", "share", "is_notable"),
    [
        ((50, 50), 50.0, False),
        ((59, 41), 59.0, False),
        ((60, 40), 60.0, True),
        ((90, 10), 90.0, True),
        ((10,) * 10, 10.0, False),
        ((20, *(8,) * 10), 20.0, True),  # 9.1 % would be even
        ((5,) * 4 + (3,) * 100, 1.5625, False),
    ],
)
def test_a_share_well_above_an_even_one_is_notable(counts, share, is_notable):
    found = balance(*counts)
    assert found.majority_share == pytest.approx(share, abs=1e-4)
    assert found.is_notable is is_notable
    assert (found.majority_class, found.num_images) == ("c0", sum(counts))


def test_classes_without_an_image_are_listed():
    found = balance(1, 0, 7, 0)
    assert (found.absent_classes, found.majority_class) == (("c1", "c3"), "c2")
    assert balance(1, 2).absent_classes == ()
    assert json.loads(json.dumps(found.summary())) == found.summary()
