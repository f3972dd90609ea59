"""Means, deviations and intervals of paired differences, by hand and against scipy."""

import math
import random

import pytest
from scipy import stats

from distillation.results.intervals import (
    Difference,
    correct_by_holm,
    deviation,
    mean,
    p_text,
    paired_difference,
)

T_975_DF_2 = 4.302653
T_975_DF_1 = 12.706205


def test_mean_and_sample_deviation_by_hand():
    assert mean([1.0, 2.0, 6.0]) == 3.0
    # Squares 4 + 1 + 9 = 14 over n − 1 = 2.
    assert deviation([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt(7))
    assert deviation([5.0, 5.0]) == 0.0
    assert mean([4.5]) == 4.5
    assert deviation([4.5]) is None


def test_three_pairs_by_hand():
    found = paired_difference({0: 80.0, 1: 82.0, 2: 81.0}, {0: 79.0, 1: 80.0, 2: 78.0})
    # Differences 1, 2, 3: mean 2, deviation 1.
    assert found.mean == 2.0
    assert found.n == 3
    assert found.low == pytest.approx(2.0 - T_975_DF_2 / math.sqrt(3), abs=1e-6)
    assert found.high == pytest.approx(2.0 + T_975_DF_2 / math.sqrt(3), abs=1e-6)
    # The interval holds 0 although every single difference is above it.
    assert not found.is_separated


def test_two_pairs_have_one_degree_of_freedom():
    found = paired_difference({3: 1.0, 4: 2.0}, {3: 0.0, 4: 0.0})
    # Differences 1, 2: mean 1.5, deviation 1/√2, of the mean 1/2.
    assert (found.mean, found.n) == (1.5, 2)
    assert found.high - found.mean == pytest.approx(T_975_DF_1 / 2, abs=1e-6)
    assert found.mean - found.low == pytest.approx(T_975_DF_1 / 2, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_it_is_scipys_paired_test(n):
    numbers = random.Random(n)
    values = {seed: numbers.gauss(80, 3) for seed in range(n)}
    reference = {seed: value - numbers.gauss(0.5, 1) for seed, value in values.items()}
    test = stats.ttest_rel(list(values.values()), list(reference.values()))
    interval = test.confidence_interval(confidence_level=0.95)
    found = paired_difference(values, reference)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.n == n
    assert found.is_separated is bool(test.pvalue < 0.05)
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-9)


def test_pairs_are_found_by_seed_and_what_all_share_cancels_out():
    values = {0: 10.0, 1: 50.0, 2: 90.0}
    shuffled = {2: 88.9, 0: 9.0, 1: 49.1}
    found = paired_difference(values, shuffled)
    assert found.mean == pytest.approx(1.0)
    # Apart they spread by 40 points; the differences by 0.1.
    assert found.high - found.low < 0.6
    assert found.is_separated


def test_only_common_seeds_count():
    values = {0: 1.0, 1: 2.0, 2: 4.0, 7: 1000.0}
    reference = {2: 0.0, 1: 0.0, 0: 0.0, 9: -1000.0}
    assert paired_difference(values, reference) == paired_difference(
        {0: 1.0, 1: 2.0, 2: 4.0}, {0: 0.0, 1: 0.0, 2: 0.0}
    )


def test_the_other_way_round_is_the_negative():
    values, reference = {0: 1.0, 1: 2.5, 2: 4.0}, {0: 0.5, 1: 3.0, 2: 1.0}
    there, back = paired_difference(values, reference), paired_difference(reference, values)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low))


def test_one_pair_has_no_interval():
    found = paired_difference({0: 82.0, 1: 5.0}, {0: 80.5, 2: 7.0})
    assert found == Difference(mean=1.5, low=None, high=None, n=1)
    assert not found.is_separated


@pytest.mark.parametrize("reference", [{}, {1: 1.0, 2: 2.0}])
def test_without_a_pair_there_is_nothing(reference):
    assert paired_difference({0: 1.0}, reference) is None
    assert paired_difference(reference, {0: 1.0}) is None


@pytest.mark.parametrize("lead", [0.3, -0.5, 0.0])
def test_equal_differences_have_no_interval_rather_than_one_without_width(lead):
    reference = {0: 81.1, 1: 82.2, 2: 84.7}
    found = paired_difference({k: v + lead for k, v in reference.items()}, reference)
    assert (found.low, found.high, found.n, found.p_value) == (None, None, 3, None)
    assert found.mean == pytest.approx(lead)
    assert not found.is_separated
    assert found.to_text() == f"{lead:+.2f} (n = 3, the same for each seed, so no interval)"


@pytest.mark.parametrize(
    ("low", "high", "is_separated"),
    [
        (0.1, 2.0, True),
        (-2.0, -0.1, True),
        (-0.1, 2.0, False),
        (0.0, 2.0, False),
        (-2.0, 0.0, False),
        (None, None, False),
    ],
)
def test_separated_is_an_interval_without_zero(low, high, is_separated):
    assert Difference(mean=1.0, low=low, high=high, n=5).is_separated is is_separated


def test_in_words():
    assert (
        Difference(mean=1.2, low=0.4, high=2.0, n=5).to_text()
        == "+1.20 (95 % CI +0.40 … +2.00, n = 5)"
    )
    found = Difference(mean=-0.125, low=-1.0, high=0.75, n=3)
    assert found.to_text(digits=1) == "-0.1 (95 % CI -1.0 … +0.8, n = 3)"
    assert Difference(mean=-35.1, low=None, high=None, n=1).to_text() == "-35.10 (n = 1)"
    assert Difference(mean=0.0, low=None, high=None, n=1).to_text(digits=4) == "+0.0000 (n = 1)"


def test_holm_by_hand():
    found = correct_by_holm({"a": 0.04, "b": 0.01, "none": None, "c": 0.03, "d": 0.5})
    expected = {"a": 0.09, "b": 0.04, "none": None, "c": 0.09, "d": 0.5}  # 4, 3, 2 and 1 times
    assert found == {name: p and pytest.approx(p) for name, p in expected.items()}
    assert list(found) == list(expected)
    assert correct_by_holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert correct_by_holm({}) == {}


def test_p_in_words():
    assert [p_text(p) for p in (0.0, 0.00099, 0.001, 0.0649, 1.0)] == [
        "p < 0.001", "p < 0.001", "p = 0.001", "p = 0.065", "p = 1.000",
    ]  # fmt: skip
