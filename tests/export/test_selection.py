"""The method is chosen on validation, or by name."""

import pytest

from distillation.export.errors import ExportError
from distillation.export.selection import select_method


@pytest.fixture
def methods(record):
    return {
        "control": [record(79.0, best_acc=99.0)],
        "exp1": [record(80.0, best_acc=50.0), record(84.0, seed=1, best_acc=51.0)],
        "exp2": [record(81.0)],
    }


def test_the_best_mean_on_validation_is_taken_whatever_test_says(methods):
    selection = select_method(methods)
    assert (selection.method, selection.record["seed"], selection.is_trained) == ("exp1", 1, True)
    assert selection.reason == (
        "Of 3 methods, exp1 has the best mean accuracy on the validation split."
    )


def test_equals_are_named_and_the_first_is_taken(methods, record):
    methods["exp2"] = [record(81.9), record(82.1, seed=1)]
    selection = select_method(methods)
    assert selection.method == "exp1"
    assert selection.reason.endswith(" accuracy on the validation split, as exp2 has.")
    methods["exp3"] = [record(82.0)]
    assert select_method(methods).reason.endswith(" split, as exp2 and exp3 have.")


def test_a_name_is_taken_instead(methods):
    selection = select_method(methods, wanted="control")
    assert (selection.method, selection.record) == ("control", methods["control"][0])
    assert selection.reason == "The parameter export_method names control."


def test_an_method_that_is_not_there_is_refused(methods):
    with pytest.raises(
        ExportError, match=r"^export_method: got 'dkd'; allowed: control, exp1, exp2, or null"
    ):
        select_method(methods, wanted="dkd")


def test_without_training_it_is_the_control_and_says_so(record):
    methods = {name: [record(None)] for name in ("control", "exp1")}
    selection = select_method(methods)
    assert (selection.method, selection.is_trained) == ("control", False)
    assert "No method was trained" in selection.reason
