"""What is said of the summary table."""

import re

import pytest

from distillation.results.remarks import remarks
from distillation.results.table import (
    best_methods,
)
from tests.results.records import (
    ALL,
    BALANCE,
    EVEN,
    NO_CONTROL,
    SEEDS,
    TEACHER,
    make_method,
    make_record,
)


def said(methods=ALL, teacher=TEACHER, source="CIFAR-10 (complete)", balance=BALANCE):
    return remarks(methods, teacher, source=source, balance=balance)


def find(sentences, start):
    return [sentence for sentence in sentences if sentence.startswith(start)]


LOPSIDED = {
    **EVEN,
    "majority_class": "cat",
    "majority_share": 90.0,
    "is_notable": True,
    "absent_classes": ["dog"],
}
POINTS = "points at the best epochs."


def test_no_remark_repeats_or_names_a_column():
    """The report's table has other headings than the summary's."""
    for methods in (ALL, NO_CONTROL, SEEDS, {}):
        sentences = said(methods, balance={"test": LOPSIDED, "validation": LOPSIDED})
        assert len(set(sentences)) == len(sentences)
        assert not [one for one in sentences if re.search(r"\w_\w|gain_|recall", one)]


@pytest.mark.parametrize("methods", [ALL, NO_CONTROL, {**SEEDS, "exp2": make_method(81.0)}])
def test_one_seed_is_said(methods):
    assert said(methods)[-1] == (
        "One seed: a difference under 0.5 points proves nothing; run more, as seeds=[0,1,2]."
    )


def test_several_seeds_are_not_called_one():
    assert not find(said(SEEDS), "One seed")
    assert not find(said({"control": make_method(1.0, 2.0)}), "One seed")


def test_nothing_more_than_needed_is_said_of_a_good_run():
    assert said({"control": make_method(82.0), "exp1": make_method(83.25)}) == [
        f"exp1 is ahead of the control: +1.25 (n = 1) {POINTS}",
        "One seed: a difference under 0.5 points proves nothing; run more, as seeds=[0,1,2].",
    ]
    assert said({"control": SEEDS["control"], "exp1": SEEDS["exp1"]}) == [
        f"exp1 beats the control: +2.00 (95 % CI +1.75 … +2.25, n = 3) {POINTS}",
    ]


def test_an_untrained_teacher():
    sentences = said(teacher={**TEACHER, "trained": False, "acc": 10.0})
    assert sentences[0] == (
        "The teacher was never trained: what is distilled from it is noise, and the table says "
        "nothing about the methods."
    )
    # Its lead is no news then.
    assert not [sentence for sentence in sentences if "lead the control" in sentence]
    assert not find(said(), "The teacher was never trained")


@pytest.mark.parametrize("methods", [ALL, NO_CONTROL, SEEDS])
def test_a_teacher_from_a_checkpoint(methods):
    sentences = said(methods, teacher={**TEACHER, "checkpoint": "resnet.pt"})
    assert sentences[0] == (
        "The teacher started from the checkpoint resnet.pt: what that was trained on, and with "
        "which labels, is not known here."
    )
    assert not find(said(methods), "The teacher started")


@pytest.mark.parametrize(
    ("acc", "lead"),
    [
        (84.5, "barely leads the control (+1.50 points)"),
        (83.0, "does not even lead the control (+0.00 points)"),
        (81.0, "does not even lead the control (-2.00 points)"),
        (85.0, None),
        (90.0, None),
    ],
)
def test_a_teacher_that_barely_leads(acc, lead):
    for control in (make_method(82.0), make_method(80.0, 81.0, 85.0)):
        found = find(said({"control": control}, teacher={**TEACHER, "acc": acc}), "The teacher ")
        assert found == ([] if lead is None else [f"The teacher {lead}: it has little to teach."])


@pytest.mark.parametrize(
    ("after_acc", "verdict"),
    [
        (83.25, f"is ahead of the control: +1.25 (n = 1) {POINTS}"),
        (82.5, f"is ahead of the control: +0.50 (n = 1) {POINTS}"),
        (
            82.4,
            f"and the control differ by less than one seed can show: +0.40 (n = 1) {POINTS}",
        ),
        (
            82.0,
            f"and the control differ by less than one seed can show: +0.00 (n = 1) {POINTS}",
        ),
        (
            81.6,
            f"and the control differ by less than one seed can show: -0.40 (n = 1) {POINTS}",
        ),
        (81.5, f"is behind the control: -0.50 (n = 1) {POINTS}"),
        (72.0, f"is behind the control: -10.00 (n = 1) {POINTS}"),
    ],
)
def test_one_seed_is_held_against_the_control(after_acc, verdict):
    methods = {"control": make_method(82.0), "exp2": make_method(after_acc)}
    assert find(said(methods), "exp2 ") == [f"exp2 {verdict}"]


def test_several_seeds_are_held_against_the_control():
    points, holm = POINTS.removesuffix("."), "by Holm's correction for 3 methods"
    assert [sentence for sentence in said(SEEDS) if sentence.startswith("exp")] == [
        f"exp1 beats the control: +2.00 (95 % CI +1.75 … +2.25, n = 3) {points}; p = 0.002 {holm}.",
        f"exp2 is not told apart from the control: +2.00 (95 % CI -0.48 … +4.48, n = 3) {points}; "
        f"p = 0.074 {holm}.",
        f"exp3 is worse than the control: -1.00 (95 % CI -1.25 … -0.75, n = 3) {points}; "
        f"p = 0.007 {holm}.",
    ]
    many = SEEDS | {f"method{number}": SEEDS["exp3"] for number in range(20)}
    (found,) = find(said(many), "exp3 ")
    alone = "exp3 is behind the control by its own interval, not with so many compared: -1.00 ("
    assert found.startswith(alone)
    (alone,) = find(said({name: SEEDS[name] for name in ("control", "exp2")}), "exp2 ")
    assert alone.endswith(f"n = 3) {POINTS}")  # one comparison needs no correction


@pytest.mark.parametrize(
    ("lead", "verdict"),
    [
        (0.28, "is not told apart from the control: +0.28"),
        (2.0, "is ahead of the control: +2.00"),
        (-2.0, "is behind the control: -2.00"),
    ],
)
def test_a_lead_that_is_the_same_for_each_seed_is_no_certainty(lead, verdict):
    methods = {
        "control": make_method(80.0, 81.0, 82.0),
        "exp1": make_method(80.0 + lead, 81.0 + lead, 82.0 + lead),
        "exp2": SEEDS["exp2"],
    }
    (found,) = find(said(methods), "exp1 ")
    assert found == f"exp1 {verdict} (n = 3, the same for each seed, so no interval) {POINTS}"


def test_a_lead_of_many_points_that_spreads_proves_nothing():
    methods = {"control": make_method(60.0, 60.0, 60.0), "exp1": make_method(61.0, 60.0, 90.0)}
    (found,) = find(said(methods), "exp1 ")
    assert found.startswith("exp1 is not told apart from the control: +10.33 (95 % CI -")


def test_the_best_is_not_separated_from_some():
    found = find(said(SEEDS), "The data do not separate")
    assert len(found) == 1
    assert re.fullmatch(
        r"The data do not separate exp1 from exp2 \W*\+0\.00 "
        r"\(95 % CI -2\.62 … \+2\.62, n = 3\)\) at the best epochs\.",
        found[0],
    )
    methods = {name: SEEDS[name] for name in ("control", "exp1", "exp3")}
    assert not find(said(methods), "The data do not separate")
    assert not find(said(SEEDS | {"exp2": SEEDS["exp3"]}), "The data do not separate")


@pytest.mark.parametrize(
    ("second", "third", "close"),
    [
        (82.123456, 81.5, []),
        (82.8, 81.5, ["exp2"]),
        (82.8, 83.25, ["exp2", "exp3"]),
        (82.75, 80.0, []),  # exactly half a point
    ],
)
def test_one_seed_separates_half_a_point(second, third, close):
    methods = {**ALL, "exp2": make_method(second), "exp3": make_method(third)}
    found = find(said(methods), "The data do not separate exp1 from")
    assert len(found) == bool(close)
    assert [name for name in ("exp2", "exp3") if found and name in found[0]] == close


@pytest.mark.parametrize("methods", [{"control": ALL["control"]}, {"control": SEEDS["control"]}])
def test_a_control_alone_beats_nobody(methods):
    sentences = said(methods)
    assert not [sentence for sentence in sentences if "the control" in sentence]
    assert not find(sentences, "The data do not separate")


@pytest.mark.parametrize("methods", [NO_CONTROL, {name: SEEDS[name] for name in ("exp1", "exp2")}])
def test_without_control(methods):
    sentences = said(methods)
    assert find(sentences, "No control was run")
    assert not [sentence for sentence in sentences if sentence.startswith("exp")]
    assert not find(sentences, "The teacher ")
    assert not find(said(), "No control was run")


def test_methods_without_a_seed_of_the_controls_are_not_judged():
    methods = {"control": make_method(80.0, 81.0), "exp1": [make_record(99.0, seed=5)]}
    assert not find(said(methods), "exp1 ")


def test_further_methods_are_judged_after_the_experiments():
    methods = {"dkd": make_method(85.0, 86.0), **SEEDS}
    judged = [sentence.split()[0] for sentence in said(methods) if ": " in sentence]
    assert judged == ["exp1", "exp2", "exp3", "dkd"]


def test_digits():
    assert find(said(source="digits (scikit-learn)"), "Digits are few and easy")
    assert not find(said(source="image folder digits"), "Digits are few and easy")


def test_the_best_method_is_that_of_the_best_validation_accuracy():
    methods = {
        "exp2": make_method(99.0, 99.0, validation_acc=80.0),
        "exp1": make_method(50.0, validation_acc=81.0),
        "control": make_method(60.0, validation_acc=79.0),
    }
    assert best_methods(methods)[0] == "exp1"
    methods["control"] = make_method(60.0, validation_acc=81.0)
    assert best_methods(methods)[0] == "control", "of equals the first in the table"
    methods["exp2"][1]["validation_acc"] = 83.0  # the mean is 81.5
    assert best_methods(methods)[0] == "exp2"
    methods["exp2"][0]["validation_acc"] = None
    assert best_methods(methods)[0] == "control"
    assert best_methods({"exp1": make_method(60.0, validation_acc=None)}) == []
    assert best_methods({}) == []


def test_a_majority_class_is_said_first():
    mostly = {**EVEN, "majority_class": "cat", "majority_share": 90.0, "is_notable": True}
    assert said(balance={"test": mostly, "validation": EVEN})[0] == (
        "90.00 % of the test images are cat: always predicting it has that accuracy. Read macro-F1 "
        "beside every accuracy."
    )
    assert said(balance={"test": EVEN, "validation": mostly})[0] == (
        "90.00 % of the validation images are cat: epochs and method are chosen by an accuracy "
        "that hardly sees the other classes."
    )
    assert not find(said(), "10.00 %")


def test_classes_without_an_image_are_named():
    lacking = {**EVEN, "absent_classes": ["cat", "dog"]}
    assert said(balance={"test": lacking, "validation": EVEN})[0] == (
        "The test split has no image of cat, dog: nothing is measured there, and "
        "macro-F1 is the mean over the other classes."
    )
    many = {**EVEN, "absent_classes": [f"c{number}" for number in range(12)]}
    (sentence,) = find(
        said(balance={"test": EVEN, "validation": many}), "The validation split has no image of c0,"
    )
    assert ", c9 and 2 more: epochs and method are chosen without it" in sentence
