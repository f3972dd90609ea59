"""The choice of a student, by validation alone, and the sentence that says why."""

import pytest

from distillation.report.recommendation import recommend
from distillation.results.table import validation_accuracies
from distillation.results.verdict import Verdict, leads_over_control


def make_method(*test_accs, validation=80.0):
    return [
        {"seed": seed, "best_acc": acc, "validation_acc": validation}
        for seed, acc in enumerate(test_accs)
    ]


def test_the_choice_is_by_validation_and_not_by_test():
    methods = {
        "control": make_method(60.0, validation=70.0),
        "exp1": make_method(62.0, validation=75.0),
        "exp2": make_method(99.0, validation=74.9),
    }
    chosen = recommend(methods)
    assert (chosen.method, chosen.shown_method, chosen.seed) == ("exp1", "exp1", 0)
    assert chosen.sentence == (
        "Take exp1: it has the highest validation accuracy, 75.00 % (the control has 70.00 %), and "
        "on test it is ahead of the control, +2.00 (n = 1) points at the best epochs; "
        "this is one seed, which has no interval."
    )


def test_the_seed_is_the_one_whose_weights_are_kept():
    method = make_method(60.0, 61.0)
    method[0]["validation_acc"], method[1]["validation_acc"] = 70.0, 72.0
    assert recommend({"control": make_method(50.0, validation=60.0), "exp1": method}).seed == 1
    assert validation_accuracies({"exp1": method}) == {"exp1": 71.0}


BEHIND = "Take the control, the student trained by labels alone: exp1 has the highest validation"
NOT_SHOWN = (
    "No difference from the control is shown: exp1 has the highest validation accuracy, 80.00 %"
)
AHEAD = (
    "Take exp1: it has the highest validation accuracy, 80.00 % (the control has 70.00 %), and on"
)
LEADS = {
    # test accuracies of the control and of exp1, by seed: who is taken, and how it is said
    "ahead": ((60.0, 61.0, 62.0), (63.0, 64.1, 65.0), "exp1", AHEAD, "beats the control, +3.03"),
    "behind": ((60.0, 61.0, 62.0), (57.0, 58.1, 59.0), "control", BEHIND, "the control, -2.97"),
    "less, includes 0": ((60.0, 61.0), (59.0, 60.9), "exp1", NOT_SHOWN, "includes 0, -0.55"),
    "more, includes 0": ((60.0, 61.0), (62.0, 61.5), "exp1", NOT_SHOWN, "includes 0, +1.25"),
    "equal": ((60.0, 61.0), (60.0, 61.0), "exp1", NOT_SHOWN, "less than 0.5 points, +0.00"),
    "equal leads": ((60.0, 61.0), (61.0, 62.0), "exp1", AHEAD, "is ahead of the control, +1.00"),
    "one seed, ahead": ((60.0,), (60.5,), "exp1", AHEAD, "is ahead of the control, +0.50"),
    "one seed, behind": ((60.0,), (59.5,), "control", BEHIND, "behind the control, -0.50 (n = 1)"),
    "one seed, a bit more": ((60.0,), (60.4,), "exp1", NOT_SHOWN, "one seed can show, +0.40"),
    "one seed, a bit less": ((60.0,), (59.6,), "exp1", NOT_SHOWN, "one seed can show, -0.40"),
}  # fmt: skip


@pytest.mark.parametrize("outcome", LEADS)
def test_every_outcome_has_its_headline(outcome):
    control, method, taken, start, lead = LEADS[outcome]
    methods = {"control": make_method(*control, validation=70.0), "exp1": make_method(*method)}
    chosen = recommend(methods)
    assert (chosen.method, chosen.shown_method) == (taken, "exp1")
    assert chosen.sentence.startswith(start)
    assert lead in chosen.sentence
    assert ("The control is as good a choice." in chosen.sentence) == (start == NOT_SHOWN)
    assert ("this is one seed" in chosen.sentence) == (len(control) == 1 and start != NOT_SHOWN)


def test_a_control_in_place_of_a_method_comes_with_its_own_seed():
    control = make_method(70.0, 71.0, validation=60.0)
    control[1]["validation_acc"] = 61.0
    chosen = recommend({"control": control, "exp1": make_method(50.0, 51.1)})
    assert (chosen.method, chosen.seed) == ("control", 1)


def test_methods_that_are_as_good_are_named():
    methods = {
        "control": make_method(50.0, 51.0, 52.0, validation=60.0),
        "exp1": make_method(60.0, 62.1, 61.0, validation=70.0),
        "exp2": make_method(61.0, 60.1, 62.5, validation=71.0),
        "exp3": make_method(55.0, 55.5, 56.6, validation=65.0),
        "dist": make_method(60.5, 61.1, 62.2, validation=70.5),
    }
    assert recommend(methods).sentence.endswith(
        " by Holm's correction for 4 methods; the data do not tell exp2 apart from exp1 and dist."
    )
    del methods["dist"]
    assert recommend(methods).sentence.endswith("; the data do not tell exp2 apart from exp1.")
    methods["exp1"] = make_method(40.0, 41.1, 40.0, validation=70.0)
    assert recommend(methods).sentence.endswith(" by Holm's correction for 3 methods.")
    one_seed = {name: records[:1] for name, records in methods.items()}
    assert "the data do not tell" not in recommend(one_seed).sentence


def test_a_method_that_every_seed_has_ahead_is_none_that_is_not_told_apart():
    methods = {
        "control": make_method(50.0, 51.0, validation=60.0),
        "exp1": make_method(60.0, 61.0, validation=71.0),
        "exp2": make_method(63.0, 64.0, validation=70.0),  # 3 points ahead, each time
    }
    assert "the data do not tell" not in recommend(methods).sentence


def test_a_lead_that_is_one_of_many_is_not_shown_by_its_own_interval():
    methods = {
        "control": make_method(60.0, 61.0, 62.0, validation=70.0),
        "exp1": make_method(62.1, 62.2, 63.7),
    }
    alone = recommend(methods).sentence
    assert "beats the control, +1.67 (95 % CI +0.55 … +2.79, n = 3) points at the" in alone
    assert "Holm" not in alone
    methods |= {f"exp{k}": make_method(60.0, 61.1, 62.3, validation=75.0) for k in (2, 3)}
    assert recommend(methods).sentence == (
        "No difference from the control is shown: exp1 has the highest validation accuracy, "
        "80.00 % (the control has 70.00 %), but on test its lead may be chance with so many "
        "compared, +1.67 (95 % CI +0.55 … +2.79, n = 3) points at the best epochs; p = 0.071 by "
        "Holm's correction for 3 methods. The control is as good a choice."
    )
    assert next(iter(leads_over_control(methods).values())).verdict is Verdict.NOT_SHOWN


def test_one_that_validation_does_not_tell_apart_is_named():
    methods = {
        "control": make_method(50.0, validation=60.0),
        "exp1": make_method(60.0, validation=70.0),
        "exp2": make_method(61.0, validation=70.0),
    }
    chosen = recommend(methods)
    assert chosen.method == "exp1"
    assert "accuracy, 70.00 % (as much as exp2; the control has 60.00 %), and" in chosen.sentence


def test_a_control_that_is_not_beaten_is_taken():
    methods = {
        "exp1": make_method(90.0),
        "exp2": make_method(95.0, validation=79.0),
        "control": make_method(96.0),
    }
    chosen = recommend(methods)
    assert (chosen.method, chosen.shown_method) == ("control", "exp1"), (
        "of equals the control is taken"
    )
    assert "nothing here speaks for distillation" in chosen.sentence
    assert "the best of them, exp1, has 80.00 %" in chosen.sentence
    methods["control"] = make_method(60.0)
    chosen = recommend(methods)
    assert chosen.method == "control"
    assert chosen.sentence.endswith(
        "(the best of them, exp1, has 80.00 %). On test exp2 is ahead of it, +35.00 (n = 1) points "
        "at the best epochs. Validation and test disagree; more seeds or validation images would "
        "tell."
    )


def test_without_a_control_or_a_method_it_says_so():
    assert "without a control it is not known" in recommend({"exp1": make_method(60.0)}).sentence
    other_seed = [make_method(60.0, 61.0)[1]]
    methods = {"control": make_method(50.0, validation=70.0), "exp1": other_seed}
    assert "without a seed that the control has too" in recommend(methods).sentence
    alone = recommend({"control": make_method(60.0)})
    assert (alone.method, alone.shown_method) == ("control", None)
    assert "the only method" in alone.sentence


def test_untrained_students_are_not_recommended():
    methods = {
        "control": make_method(10.0, validation=None),
        "exp1": make_method(10.0, validation=None),
    }
    chosen = recommend(methods)
    assert (chosen.method, chosen.seed, chosen.shown_method) == (None, None, None)
    assert chosen.sentence == "No student was trained (epochs: 0), so there is none to take."
    assert recommend({}).sentence == "No method is there, so there is none to take."
