"""What the trainings of one method say together, by hand."""

import math

import pytest

from distillation.runs.seeds import best_by_validation, combine_seeds

KEYS = [
    "n",
    "before_acc",
    "after_acc",
    "gain_acc",
    "before_f1",
    "after_f1",
    "gain_f1",
    "before_loss",
    "after_loss",
    "best_acc",
    "best_f1",
    "best_ece",
    "after_acc_std",
    "after_f1_std",
    "best_acc_std",
    "best_f1_std",
    "validation_acc",
    "saved_seed",
    "best_epoch",
    "epochs",
    "teacher_outputs",
]


def make_record(seed, **changes):
    return {
        "seed": seed,
        "before_acc": 10.0,
        "after_acc": 80.0,
        "before_f1": 0.1,
        "after_f1": 0.8,
        "before_loss": 2.3,
        "after_loss": 0.7,
        "best_acc": 81.0,
        "best_f1": 0.81,
        "best_ece": 0.05,
        "best_epoch": 4,
        "epochs": 5,
        "validation_acc": 85.0,
        "teacher_outputs": "stored",
        **changes,
    }


THREE = [
    make_record(
        4, before_acc=9.0, after_acc=80.0, after_f1=0.8, after_loss=0.7, best_acc=90.0,
        best_f1=0.9, best_ece=0.02, validation_acc=80.0, best_epoch=1, epochs=3, before_loss=2.0,
        before_f1=0.05,
    ),
    make_record(
        0, before_acc=10.0, after_acc=82.0, after_f1=0.81, after_loss=0.6, best_acc=83.0,
        best_f1=0.83, best_ece=0.03, validation_acc=86.0, best_epoch=2, epochs=4, before_loss=2.1,
        before_f1=0.06,
    ),
    make_record(
        2, before_acc=14.0, after_acc=87.0, after_f1=0.88, after_loss=0.2, best_acc=88.0,
        best_f1=0.88, best_ece=0.1, validation_acc=83.5, best_epoch=3, epochs=5, before_loss=2.5,
        before_f1=0.13,
    ),
]  # fmt: skip


def test_three_seeds_by_hand():
    assert combine_seeds(THREE) == {
        "n": 3,
        "before_acc": 11.0,
        "after_acc": 83.0,
        "gain_acc": 72.0,
        "before_f1": 0.08,
        "after_f1": 0.83,
        "gain_f1": 0.75,
        "before_loss": 2.2,
        "after_loss": 0.5,
        "best_acc": 87.0,
        "best_f1": 0.87,
        "best_ece": 0.05,
        # Of 80, 82, 87: squares 9 + 1 + 16 over 2; of 90, 83, 88: 9 + 16 + 1 over 2.
        "after_acc_std": round(math.sqrt(13), 4),
        "after_f1_std": round(math.sqrt((0.03**2 + 0.02**2 + 0.05**2) / 2), 6),
        "best_acc_std": round(math.sqrt(13), 4),
        "best_f1_std": round(math.sqrt((0.03**2 + 0.04**2 + 0.01**2) / 2), 6),
        "validation_acc": round((80 + 86 + 83.5) / 3, 4),
        "saved_seed": 0,
        "best_epoch": 2,
        "epochs": 4,
        "teacher_outputs": "stored",
    }


def test_one_seed_has_no_deviation():
    combined = combine_seeds([THREE[2]])
    record = THREE[2]
    shared = {key for key in KEYS if key in record}
    assert {key: combined[key] for key in shared} == {key: record[key] for key in shared}
    assert {key: combined[key] for key in KEYS if key not in record} == {
        "n": 1,
        "gain_acc": 73.0,
        "gain_f1": 0.75,
        "after_acc_std": None,
        "after_f1_std": None,
        "best_acc_std": None,
        "best_f1_std": None,
        "saved_seed": 2,
    }


@pytest.mark.parametrize("records", [THREE[:1], THREE[:2], THREE], ids=len)
def test_the_keys_are_always_the_same(records):
    assert list(combine_seeds(records)) == KEYS


def test_top5_accuracy_is_combined_where_all_seeds_have_it():
    records = [make_record(0, best_top5=90.0), make_record(1, best_top5=93.0)]
    combined = combine_seeds(records)
    assert list(combined) == [*KEYS, "best_top5", "best_top5_std"]
    assert (combined["best_top5"], combined["best_top5_std"]) == (91.5, round(math.sqrt(4.5), 4))
    assert list(combine_seeds([*records, make_record(2)])) == KEYS


def test_the_order_of_the_seeds_does_not_matter():
    assert combine_seeds(THREE[::-1]) == combine_seeds(THREE)


def test_numbers_are_rounded_once():
    records = [make_record(0, before_acc=1 / 3, after_acc=2 / 3, best_f1=1 / 3), make_record(1)]
    combined = combine_seeds(records)
    assert combined["after_acc"] == 40.3333
    assert combined["best_f1"] == 0.571667
    # Of the exact means, 40.33333 − 5.166666; of the rounded ones it would be 35.1666.
    assert combined["gain_acc"] == 35.1667


def test_the_weights_kept_are_the_best_on_validation_not_on_test():
    assert max(THREE, key=lambda record: record["best_acc"])["seed"] == 4
    assert max(THREE, key=lambda record: record["after_acc"])["seed"] == 2
    assert best_by_validation(THREE) is THREE[1]
    assert combine_seeds(THREE)["saved_seed"] == 0


def test_of_equals_the_first_is_kept():
    records = [make_record(3), make_record(1), make_record(2, validation_acc=84.9)]
    assert combine_seeds(records)["saved_seed"] == 3
    assert combine_seeds(records[::-1])["saved_seed"] == 1


def test_without_epochs_there_is_no_validation_accuracy():
    records = [
        make_record(seed, validation_acc=None, epochs=0, best_epoch=0, after_acc=10.0)
        for seed in (5, 6)
    ]
    combined = combine_seeds(records)
    assert combined["validation_acc"] is None
    assert (combined["saved_seed"], combined["epochs"], combined["best_epoch"]) == (5, 0, 0)
    assert combined["gain_acc"] == 0.0
    assert list(combined) == KEYS


def test_an_accuracy_of_zero_is_more_than_none():
    records = [make_record(0, validation_acc=None), make_record(1, validation_acc=0.0)]
    assert best_by_validation(records)["seed"] == 1
