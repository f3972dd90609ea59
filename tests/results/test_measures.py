"""Recall, confusion, agreement and the gap, by hand and against scikit-learn."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score

from distillation.results import measures
from distillation.results.measures import (
    measure,
    measure_methods,
    predicted_classes,
    share_of_gap_closed,
    spread,
    teacher_agreement,
)
from distillation.runs.calibration import calibration_error
from distillation.runs.predictions import Predictions

NAMES = ("cat", "dog", "owl")
LABELS = np.array([0, 0, 1, 1, 2, 2])
FIRST = [0, 1, 1, 1, 0, 1]  # 3 of 6 right; the owl is never predicted
SECOND = [0, 0, 1, 0, 1, 0]  # 3 of 6 right


def logits_of(predicted, *, lead=2.0):
    return (lead * np.eye(len(NAMES))[list(predicted)]).astype(np.float32)


def predictions_of(*trainings, labels=LABELS, **options):
    return Predictions(
        logits=np.stack([logits_of(predicted, **options) for predicted in trainings]),
        seeds=np.arange(len(trainings)),
        labels=labels,
        class_names=NAMES,
    )


def test_predicted_classes_are_those_of_one_seed():
    predictions = predictions_of(FIRST, SECOND)
    predictions.seeds = np.array([7, 3])
    table = predicted_classes(predictions, seed=3)
    assert list(table.itertuples(index=False, name=None)) == [
        ("cat", "cat"), ("cat", "cat"), ("dog", "dog"),
        ("dog", "cat"), ("owl", "dog"), ("owl", "cat"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="4 is not in list"):
        predicted_classes(predictions, seed=4)


def test_one_training_by_hand():
    found = measure(predictions_of(FIRST))
    assert found["accuracy"] == {"mean": 50.0, "std": None, "n": 1}
    assert found["recall"] == {"cat": 0.5, "dog": 1.0, "owl": 0.0}
    assert found["confusion"] == [[1, 1, 0], [0, 2, 0], [1, 1, 0]]
    confidence = math.exp(2) / (math.exp(2) + 2)
    assert found["calibration_error"] == {
        "mean": round(abs(0.5 - confidence), 6), "std": None, "n": 1,
    }  # fmt: skip
    assert set(found) == {
        "accuracy", "calibration_error", "scaled_calibration_error", "recall", "confusion",
    }  # fmt: skip


def test_the_scaled_calibration_error_takes_each_trainings_temperature():
    predictions = predictions_of(FIRST, SECOND)
    plain = measure(predictions)
    assert plain["scaled_calibration_error"] == plain["calibration_error"]
    predictions.temperatures = np.array([0.5, 4.0])
    expected = [
        calibration_error(one, predictions.labels, temperature=temperature)
        for one, temperature in zip(predictions.logits, (0.5, 4.0), strict=True)
    ]
    found = measure(predictions)
    assert found["scaled_calibration_error"]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert found["calibration_error"] == plain["calibration_error"]


def test_many_classes_have_a_top5_accuracy():
    logits = np.tile(-np.arange(20.0), (2, 4, 1))  # classes in order, from the first on
    logits[1] *= -1
    predictions = Predictions(
        logits=logits,
        seeds=np.arange(2),
        labels=np.array([0, 3, 4, 5]),
        class_names=tuple(map(str, range(20))),
    )
    found = measure(predictions)["top5_accuracy"]
    assert found == {"mean": 37.5, "std": round(75 / math.sqrt(2), 6), "n": 2}


def test_several_trainings_by_hand():
    found = measure(predictions_of(FIRST, SECOND, LABELS))
    accuracies = [50.0, 50.0, 100.0]
    assert found["accuracy"] == {
        "mean": round(200 / 3, 6),
        "std": round(float(np.std(accuracies, ddof=1)), 6),
        "n": 3,
    }
    # Means of (1/2, 1, 1), (1, 1/2, 1) and (0, 0, 1); counts are sums.
    assert found["recall"] == {"cat": 0.833333, "dog": 0.833333, "owl": 0.333333}
    assert found["confusion"] == [[5, 1, 0], [1, 5, 0], [2, 2, 2]]
    assert {found[name]["n"] for name in ("accuracy", "calibration_error")} == {3}


def test_a_training_is_measured_alike_alone_and_among_others():
    alone = [measure(predictions_of(predicted)) for predicted in (FIRST, SECOND)]
    both = measure(predictions_of(FIRST, SECOND))
    errors = [found["calibration_error"]["mean"] for found in alone]
    assert both["calibration_error"]["mean"] == pytest.approx(np.mean(errors), abs=2e-6)
    assert both["confusion"] == np.sum([found["confusion"] for found in alone], axis=0).tolist()


def test_many_classes_have_no_matrix_in_a_file_that_git_keeps(monkeypatch):
    few = measure(predictions_of(FIRST))
    monkeypatch.setattr(measures, "MAX_CONFUSION_CLASSES", 2)
    many = measure(predictions_of(FIRST))
    assert set(few) - set(many) == {"confusion"}


def test_it_is_scikit_learns_recall_and_confusion():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=80)
    logits = generator.normal(size=(4, 80, 3)).astype(np.float32)
    logits[:, :, 2] -= 1e3  # the last class is never predicted
    predictions = Predictions(logits=logits, seeds=np.arange(4), labels=labels, class_names=NAMES)
    found = measure(predictions)
    guesses = logits.argmax(axis=2)
    matrices = [confusion_matrix(labels, guess, labels=[0, 1, 2]) for guess in guesses]
    assert found["confusion"] == sum(matrices).tolist()
    recalls = [recall_score(labels, guess, average=None) for guess in guesses]
    assert list(found["recall"].values()) == pytest.approx(np.mean(recalls, axis=0), abs=1e-6)
    assert found["recall"]["owl"] == 0.0
    errors = [calibration_error(values, labels) for values in logits]
    assert found["calibration_error"]["mean"] == pytest.approx(np.mean(errors), abs=1e-6)
    assert found["calibration_error"]["std"] == pytest.approx(np.std(errors, ddof=1), abs=1e-6)


def test_a_class_without_samples_does_not_shift_the_others():
    found = measure(predictions_of([0, 2, 2], labels=np.array([0, 2, 0])))
    assert found["confusion"] == [[1, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert found["recall"] == {"cat": 0.5, "dog": None, "owl": 1.0}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_measures_are_ready_for_json():
    teacher = predictions_of(LABELS)
    found = measure(predictions_of(FIRST, SECOND), teacher)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


# Agreement with the teacher


def test_agreement_by_hand():
    student = np.log([[0.5, 0.5 - 1e-9], [0.25, 0.75]])
    teacher = np.log([[0.8, 0.2], [0.6, 0.4]])
    agreement, divergence = teacher_agreement(student, teacher)
    assert agreement == 50.0
    first = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    second = 0.6 * math.log(0.6 / 0.25) + 0.4 * math.log(0.4 / 0.75)
    assert divergence == pytest.approx((first + second) / 2, abs=1e-8)
    # It is KL(teacher ‖ student), not the other way round.
    assert divergence != pytest.approx(teacher_agreement(teacher, student)[1], rel=0.01)


def test_divergence_is_that_of_torch():
    generator = np.random.default_rng(1)
    student, teacher = generator.normal(size=(2, 40, 7)) * 3
    expected = torch.nn.functional.kl_div(
        torch.tensor(student).log_softmax(1),
        torch.tensor(teacher).log_softmax(1),
        reduction="batchmean",
        log_target=True,
    )
    assert teacher_agreement(student, teacher)[1] == pytest.approx(float(expected))


def test_a_student_like_its_teacher_agrees_wholly():
    logits = np.random.default_rng(2).normal(size=(30, 5)).astype(np.float32)
    assert teacher_agreement(logits, logits) == (100.0, 0.0)
    agreement, divergence = teacher_agreement(logits + 100.0, logits)
    assert (agreement, divergence) == (100.0, pytest.approx(0.0, abs=1e-5))


def test_extreme_logits_have_a_finite_divergence():
    sure = np.array([[1e3, -1e3, 0.0]], dtype=np.float32)
    other = np.array([[-1e3, 1e3, 0.0]], dtype=np.float32)
    assert teacher_agreement(sure, sure) == (100.0, 0.0)
    assert teacher_agreement(other, sure) == (0.0, pytest.approx(2000.0))


def test_agreement_of_several_trainings_is_with_the_teachers_first():
    teacher = predictions_of(FIRST, SECOND)
    found = measure(predictions_of(FIRST, SECOND, FIRST), teacher)
    # FIRST and SECOND say the same of samples 0 and 2.
    shares = [100.0, 100.0 / 3, 100.0]
    assert found["teacher_agreement"] == {
        "mean": round(float(np.mean(shares)), 6),
        "std": round(float(np.std(shares, ddof=1)), 6),
        "n": 3,
    }
    divergence = teacher_agreement(logits_of(SECOND), logits_of(FIRST))[1]
    assert found["teacher_kl"]["mean"] == pytest.approx(divergence / 3, abs=1e-6)
    assert found["teacher_kl"]["n"] == 3


# The gap


@pytest.mark.parametrize(
    ("method", "share"),
    [(80.0, 0.0), (90.0, 1.0), (82.5, 0.25), (92.0, 1.2), (75.0, -0.5), (80.0 + 10 / 3, 0.3333)],
)
def test_share_of_the_gap(method, share):
    assert share_of_gap_closed(method=method, control=80.0, teacher=90.0) == share


@pytest.mark.parametrize("teacher", [80.0, 79.9, 0.0])
def test_without_a_gap_there_is_no_share(teacher):
    assert share_of_gap_closed(method=85.0, control=80.0, teacher=teacher) is None


def test_methods_are_measured_against_teacher_and_control():
    found = measure_methods(
        {
            "teacher": predictions_of(LABELS),
            "control": predictions_of(FIRST, FIRST),
            "exp1": predictions_of(FIRST, LABELS),
            "exp2": predictions_of([1, 1, 0, 0, 0, 0], FIRST),
        }
    )
    assert list(found) == ["teacher", "control", "exp1", "exp2"]
    assert "teacher_agreement" not in found["teacher"]
    assert "gap_closed" not in found["teacher"]
    assert found["control"]["gap_closed"] == 0.0
    # Half of the mean of 50 % and 100 %; the mean of 0 % and 50 % lies behind the control.
    assert found["exp1"]["gap_closed"] == 0.5
    assert found["exp2"]["gap_closed"] == -0.5
    assert found["exp1"]["teacher_agreement"]["mean"] == 75.0
    assert found["exp1"] == {
        **measure(predictions_of(FIRST, LABELS), predictions_of(LABELS)), "gap_closed": 0.5,
    }  # fmt: skip


def test_without_control_nothing_is_said_of_the_gap():
    found = measure_methods({"teacher": predictions_of(LABELS), "exp1": predictions_of(FIRST)})
    assert "gap_closed" not in found["exp1"]
    assert found["exp1"]["teacher_agreement"]["mean"] == 50.0


def test_a_teacher_behind_the_control_leaves_no_gap():
    found = measure_methods({"teacher": predictions_of(FIRST), "control": predictions_of(LABELS)})
    assert found["control"]["gap_closed"] is None


def test_spread():
    assert spread([2.0]) == {"mean": 2.0, "std": None, "n": 1}
    assert spread([1.0, 2.0, 6.0]) == {"mean": 3.0, "std": 2.645751, "n": 3}
