"""Files of predictions; calibration error by hand and against a slow loop; top-5 accuracy."""

import math
import os

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from distillation.base.errors import DistillationError
from distillation.runs.predictions import (
    NUM_BINS,
    TOP5_CLASSES,
    Predictions,
    PredictionsError,
    calibration_error,
    load_predictions,
    top5_accuracy,
)
from tests.helpers.sealed import flip_bit


def make(*, num_trainings=2, num_samples=5, num_classes=3, seed=0):
    generator = np.random.default_rng(seed)
    shape = (num_trainings, num_samples, num_classes)
    return Predictions(
        logits=generator.normal(size=shape).astype(np.float32),
        seeds=np.arange(num_trainings) * 7,
        labels=generator.integers(num_classes, size=num_samples),
        class_names=("Apfel", "Bäume", "猫")[:num_classes],
    )


# Files


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = tmp_path / "new" / "folder" / "method.npz"
    predictions = make()
    predictions.save(path)
    found = load_predictions(path)
    for name in ("logits", "seeds", "labels"):
        saved, loaded = getattr(predictions, name), getattr(found, name)
        np.testing.assert_array_equal(loaded, saved)
        assert loaded.dtype == saved.dtype
    assert found.class_names == ("Apfel", "Bäume", "猫")
    assert all(type(name) is str for name in found.class_names)
    assert [file.name for file in path.parent.iterdir()] == ["method.npz"]


def test_the_same_predictions_give_the_same_bytes(tmp_path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    make().save(first)
    make().save(second)
    assert first.read_bytes() == second.read_bytes()
    load_predictions(first).save(second)
    assert first.read_bytes() == second.read_bytes()
    make(seed=1).save(second)
    assert first.read_bytes() != second.read_bytes()


def test_saving_again_replaces_the_file(tmp_path):
    path = tmp_path / "method.npz"
    path.write_bytes(b"old" * 100_000)
    make(num_trainings=1).save(path)
    assert load_predictions(path).logits.shape == (1, 5, 3)


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "method.npz"
    make().save(path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="no space left"):
        make(seed=1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flip(content: bytes) -> bytes:
    position = content.index(b"\x93NUMPY") + 140  # within the logits
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [_cut, _flip, lambda content: b"", lambda content: b"no archive", lambda content: content[:-1]],
    ids=["cut", "flipped bit", "empty", "text", "last byte"],
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "method.npz"
    make().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        PredictionsError,
        match=rf"^{path}: no complete file of predictions \(.+\); delete {path} and run `dvc "
        rf"checkout {path}`; if DVC's cache is damaged too .* run the training again$",
    ):
        load_predictions(path)


def loads_as(path, expected):
    """Return whether a file is read; if it is, nothing in it is changed."""
    try:
        found = load_predictions(path)
    except PredictionsError:
        return False
    for name in ("logits", "seeds", "labels"):
        values, before = getattr(found, name), getattr(expected, name)
        assert values.dtype == before.dtype
        np.testing.assert_array_equal(values, before)
    assert found.class_names == expected.class_names
    return True


def test_a_flip_of_any_byte_is_an_error_or_changes_nothing(tmp_path):
    """The CRC-32 of an archive's members covers the arrays; the directory says where they are."""
    path, expected = tmp_path / "method.npz", make()
    expected.save(path)
    content = path.read_bytes()
    bits = np.random.default_rng(0).integers(8, size=len(content))
    num_loaded = 0
    for position, bit in enumerate(bits):
        flip_bit(path, position, int(bit))
        num_loaded += loads_as(path, expected)
        path.write_bytes(content)
    assert num_loaded < 0.3 * len(content)  # times, versions and attributes of members
    first = content.index(b"\x93NUMPY")
    for position in range(first, first + 128 + expected.logits.nbytes):
        flip_bit(path, position, 3)
        assert not loads_as(path, expected)
        path.write_bytes(content)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_refused(tmp_path, value):
    predictions = make()
    predictions.logits[1, 2, 0] = value
    predictions.save(tmp_path / "a.npz")
    with pytest.raises(PredictionsError, match=r"holds logits that are NaN or infinite; run"):
        load_predictions(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["seeds", "labels", "class_names"])
def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path, name):
    predictions = make()
    setattr(predictions, name, getattr(predictions, name)[:-1])
    predictions.save(tmp_path / "a.npz")
    match = r"has logits of shape \(2, 5, 3\) for \(\d, \d, \d\) seeds, samples and"
    with pytest.raises(PredictionsError, match=match):
        load_predictions(tmp_path / "a.npz")


def test_a_missing_file_and_one_of_something_else_are_named(tmp_path):
    path = tmp_path / "method.npz"
    with pytest.raises(PredictionsError, match=rf"^{path}: no complete file .*No such file"):
        load_predictions(path)
    np.savez(path, logits=np.zeros((1, 2, 3)))
    with pytest.raises(PredictionsError, match=rf"^{path}: no complete file .*seeds"):
        load_predictions(path)
    np.savez(path, logits=np.array([{}]), seeds=np.zeros(1), labels=np.zeros(1), class_names=["a"])
    with pytest.raises(PredictionsError, match=rf"^{path}: no complete file .*Python objects"):
        load_predictions(path)
    assert issubclass(PredictionsError, DistillationError)


def test_a_pipe_in_the_place_of_the_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(PredictionsError, match=r"\(a\.npz is no regular file\); delete "):
        load_predictions(tmp_path / "a.npz")


# Calibration


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


# Top-5 accuracy


@pytest.mark.parametrize("num_classes", [TOP5_CLASSES, 100])
def test_top5_accuracy_is_scikit_learns(num_classes):
    generator = np.random.default_rng(num_classes)
    logits = generator.normal(size=(300, num_classes)).astype(np.float32)
    labels = generator.integers(num_classes, size=300)
    logits[np.arange(300), labels] += 1.0
    expected = top_k_accuracy_score(labels, logits, k=5, labels=range(num_classes))
    found = top5_accuracy(logits, labels)
    assert found == pytest.approx(100 * expected, abs=1e-12)
    assert found > 100 * accuracy_score(labels, logits.argmax(axis=1)) + 5


def test_top5_accuracy_of_equal_logits_is_that_of_the_first_five_classes():
    labels = np.array([0, 4, 5, TOP5_CLASSES - 1])
    assert top5_accuracy(np.zeros((4, TOP5_CLASSES), dtype=np.float32), labels) == 50.0


def test_few_classes_have_no_top5_accuracy():
    assert top5_accuracy(np.zeros((4, TOP5_CLASSES - 1)), np.zeros(4, dtype=np.int64)) is None
