"""Calibration error by hand and against a slow loop; temperatures that undo a scale."""

import math

import numpy as np
import pytest
from scipy.special import softmax

from distillation.runs.calibration import NUM_BINS, calibration_error, fit_temperature


def logits_for(probabilities):
    """Give logits whose softmax has these probabilities (N, K)."""
    return np.log(np.asarray(probabilities, dtype=np.float64))


def slow_calibration_error(logits, labels):
    """Bin by bin and sample by sample, in plain Python."""
    error = 0.0
    for number in range(NUM_BINS):
        low, high = number / NUM_BINS, (number + 1) / NUM_BINS
        confidences, hits = [], []
        for row, label in zip(logits, labels, strict=True):
            largest = max(float(value) for value in row)
            weights = [math.exp(float(value) - largest) for value in row]
            confidence = max(weights) / sum(weights)
            if low < confidence <= high:
                confidences.append(confidence)
                hits.append(weights.index(max(weights)) == label)
        if hits:
            gap = sum(hits) / len(hits) - sum(confidences) / len(hits)
            error += len(hits) / len(labels) * abs(gap)
    return error


def test_calibration_error_by_hand():
    # Two bins: 0.7 and 0.72 (one right of two) and 0.9 (right).
    logits = logits_for([[0.7, 0.2, 0.1], [0.72, 0.18, 0.1], [0.05, 0.05, 0.9]])
    expected = 2 / 3 * abs(1 / 2 - 0.71) + 1 / 3 * abs(1 - 0.9)
    assert calibration_error(logits, np.array([0, 1, 2])) == pytest.approx(expected)


def test_what_cancels_within_a_bin_does_not_across_bins():
    # 0.75 and 0.95 lie apart: |1 − 0.75| and |0 − 0.95| do not cancel; twice 0.75 does, to 1/4.
    apart = logits_for([[0.75, 0.25], [0.95, 0.05]])
    assert calibration_error(apart, np.array([0, 1])) == pytest.approx((0.25 + 0.95) / 2)
    together = logits_for([[0.75, 0.25], [0.75, 0.25]])
    assert calibration_error(together, np.array([0, 1])) == pytest.approx(0.25)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_calibration_error_is_that_of_a_slow_loop(num_classes, scale):
    generator = np.random.default_rng(num_classes)
    logits = (scale * generator.normal(size=(200, num_classes))).astype(np.float32)
    labels = np.where(
        generator.random(200) < 0.6, logits.argmax(1), generator.integers(num_classes, size=200)
    )
    expected = slow_calibration_error(logits, labels)
    assert calibration_error(logits, labels) == pytest.approx(expected, abs=1e-12)


def test_a_perfectly_calibrated_classifier_has_no_error():
    # Four of five are right where it says 0.8, two of four where it says 0.5.
    logits = logits_for([[0.8, 0.2]] * 5 + [[0.5, 0.5]] * 4)
    labels = np.array([0, 0, 0, 0, 1, 0, 0, 1, 1])
    assert calibration_error(logits, labels) == pytest.approx(0.0, abs=1e-12)


def test_the_error_of_sure_classifiers_is_their_error_rate():
    logits = np.zeros((8, 4), dtype=np.float32)
    logits[:, 2] = 1e3
    assert calibration_error(logits, np.full(8, 2)) == 0.0
    assert calibration_error(logits, np.full(8, 1)) == 1.0
    assert calibration_error(logits, np.array([2, 2, 2, 2, 2, 2, 0, 1])) == pytest.approx(0.25)


@pytest.mark.parametrize("size", [1e3, 1e30, np.finfo(np.float32).max])
def test_extreme_logits_are_finite(size):
    logits = np.array([[size, -size, 0.0], [-size, -size, -size]], dtype=np.float32)
    with np.errstate(all="raise", under="ignore"):
        found = calibration_error(logits, np.array([0, 1]))
    # The second has three equal logits: 1/3 for the first class, which is wrong.
    assert found == pytest.approx(1 / 6)


def test_a_constant_added_to_all_logits_changes_nothing():
    logits = np.random.default_rng(3).normal(size=(50, 5))
    labels = np.arange(50) % 5
    assert calibration_error(logits + 300.0, labels) == pytest.approx(
        calibration_error(logits, labels), abs=1e-12
    )


def test_the_order_of_the_samples_does_not_matter():
    generator = np.random.default_rng(4)
    logits, labels = generator.normal(size=(60, 4)), generator.integers(4, size=60)
    order = generator.permutation(60)
    assert calibration_error(logits[order], labels[order]) == pytest.approx(
        calibration_error(logits, labels), abs=1e-12
    )


# Temperature


def drawn_labels(logits, *, seed=0):
    """Draw a label for each row by the row's own probabilities: such logits are calibrated."""
    generator = np.random.default_rng(seed)
    return np.array([generator.choice(len(p), p=p) for p in softmax(logits, axis=1)])


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_the_temperature_undoes_the_factor_by_which_logits_are_too_large(factor):
    logits = 2.0 * np.random.default_rng(1).normal(size=(8_000, 5))
    labels = drawn_labels(logits)
    found = fit_temperature(factor * logits, labels)
    assert found == pytest.approx(factor, rel=0.05)
    scaled = calibration_error(factor * logits, labels, temperature=found)
    assert scaled < 0.02
    if factor != 1.0:
        assert calibration_error(factor * logits, labels) > 0.1


def test_the_temperature_minimises_the_cross_entropy():
    logits = 3.0 * np.random.default_rng(2).normal(size=(500, 4)).astype(np.float32)
    labels = drawn_labels(logits / 2)

    def cross_entropy(temperature):
        probs = softmax(logits.astype(np.float64) / temperature, axis=1)
        return -np.log(probs[np.arange(500), labels]).mean()

    best = fit_temperature(logits, labels)
    assert 1.5 < best < 3.0
    assert all(cross_entropy(best) <= cross_entropy(best * f) for f in (0.8, 0.95, 1.05, 1.25))


def test_the_temperature_has_bounds():
    sure = np.eye(3)[[0, 1, 2, 0]]
    assert fit_temperature(sure, np.array([0, 1, 2, 0])) == pytest.approx(1 / 20, rel=1e-2)
    assert fit_temperature(sure, np.array([1, 2, 0, 1])) == pytest.approx(20, rel=1e-2)
    assert math.isfinite(fit_temperature(np.zeros((1, 3), np.float32), np.array([0])))


def test_a_temperature_changes_the_confidence_alone():
    logits = logits_for([[0.8, 0.2], [0.8, 0.2]])
    labels = np.array([0, 1])
    cooler = 0.8**2 / (0.8**2 + 0.2**2)
    assert calibration_error(logits, labels, temperature=0.5) == pytest.approx(cooler - 0.5)
