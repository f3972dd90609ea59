"""Files of predictions; top-5 accuracy."""

import os

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from distillation.base.errors import DistillationError
from distillation.runs.predictions import (
    TOP5_CLASSES,
    Predictions,
    PredictionsError,
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
