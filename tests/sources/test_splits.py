import itertools

import numpy as np
import pytest

from distillation.sources.splits import labeled_subset, split_off

# Unbalanced and shuffled: 2, 3, 40 and 155 samples; the class numbers have a gap.
LABELS = np.random.default_rng(7).permutation(np.repeat([0, 1, 2, 5], [2, 3, 40, 155]))
FRACTIONS = [0.001, 0.1, 0.2, 1 / 3, 0.5, 0.9, 0.999]


def class_counts(indices):
    return np.bincount(LABELS[indices], minlength=6)


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_split_is_disjoint_complete_and_sorted(fraction):
    rest, held_out = split_off(LABELS, fraction, seed=0)

    assert not set(rest) & set(held_out)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, held_out])), np.arange(200))
    for part in (rest, held_out):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_split_is_stratified_with_each_class_on_both_sides(fraction):
    rest, held_out = split_off(LABELS, fraction, seed=0)

    total = class_counts(np.arange(200))
    present = total > 0
    assert (class_counts(rest)[present] >= 1).all()
    assert (class_counts(held_out)[present] >= 1).all()
    share_is_free = total * fraction >= 1  # else the class gives its one sample
    share_is_free &= total * (1 - fraction) >= 1
    expected = (total * fraction)[share_is_free]
    assert np.abs(class_counts(held_out)[share_is_free] - expected).max(initial=0) <= 0.5


def test_split_of_known_counts():
    rest, held_out = split_off(LABELS, 0.2, seed=3)

    assert class_counts(held_out).tolist() == [1, 1, 8, 0, 0, 31]
    assert class_counts(rest).tolist() == [1, 2, 32, 0, 0, 124]


def test_split_refuses_a_class_of_one():
    with pytest.raises(ValueError, match=r"class 4 has (one|1) sample.*; (two|2) are needed"):
        split_off(np.array([3, 3, 4]), 0.5, seed=0)


@pytest.mark.parametrize(
    "choose",
    [
        lambda seed: split_off(LABELS, 0.2, seed=seed)[1],
        lambda seed: labeled_subset(LABELS, 0.2, seed=seed),
    ],
    ids=["split_off", "labeled_subset"],
)
def test_choice_repeats_from_its_seed_and_no_other(choose):
    np.testing.assert_array_equal(choose(11), choose(11))
    assert not np.array_equal(choose(11), choose(12))


def test_choice_leaves_the_global_random_state_alone():
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    split_off(LABELS, 0.2, seed=1)
    labeled_subset(LABELS, 0.2, seed=1)

    assert np.random.random() == expected


def test_choice_in_a_class_does_not_depend_on_the_other_classes():
    alone = np.flatnonzero(LABELS == 5)
    chosen = labeled_subset(LABELS, 0.2, seed=4)

    in_isolation = alone[labeled_subset(np.full(len(alone), 5), 0.2, seed=4)]
    np.testing.assert_array_equal(chosen[LABELS[chosen] == 5], in_isolation)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_smaller_labeled_subsets_lie_inside_larger_ones(seed):
    subsets = [set(labeled_subset(LABELS, f, seed=seed)) for f in (0.01, 0.1, 0.2, 0.5, 1.0)]

    for smaller, larger in itertools.pairwise(subsets):
        assert smaller < larger
    assert subsets[-1] == set(range(200))


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.001, [1, 1, 1, 0, 0, 1]),
        (0.1, [1, 1, 4, 0, 0, 16]),
        (0.5, [1, 2, 20, 0, 0, 78]),
        (1.0, [2, 3, 40, 0, 0, 155]),
    ],
)
def test_labeled_subset_is_stratified_and_keeps_each_class(fraction, expected):
    chosen = labeled_subset(LABELS, fraction, seed=0)

    assert class_counts(chosen).tolist() == expected
    assert (np.diff(chosen) > 0).all()
