"""Confusion matrices and the pairs confused most."""

import numpy as np
import pytest

from distillation.report import confusion
from distillation.report.confusion import draw_confusion
from distillation.report.palette import make_styles, stand_ins
from distillation.runs.predictions import Predictions


def draw(inputs, *, shown_method="exp1"):
    styles = make_styles(inputs.methods)
    return draw_confusion(inputs, styles, stand_ins(styles.values()), shown_method=shown_method)


def make_predictions(predicted, labels, num_classes):
    """Give one training that predicts these classes."""
    return Predictions(
        logits=np.eye(num_classes, dtype=np.float32)[[predicted]],
        seeds=np.array([0]),
        labels=np.array(labels),
        class_names=tuple("abcdef"[:num_classes]),
    )


def test_shares_are_percent_of_the_true_class():
    shares = confusion.confusion_shares(make_predictions([0, 1, 1, 1], [0, 0, 0, 1], 3))
    expected = [[100 / 3, 200 / 3, 0], [0, 100, 0], [0, 0, 0]]
    np.testing.assert_allclose(shares, expected)


def test_pairs_are_in_order_and_leave_out_what_is_right():
    shares = np.array([[90.0, 10.0, 0.0], [0.0, 60.0, 40.0], [5.0, 0.0, 95.0]])
    pairs = confusion._pairs(shares, shares / 2, "abc")
    assert [(pair.true, pair.predicted, pair.share) for pair in pairs] == [
        ("b", "c", 40.0),
        ("a", "b", 10.0),
        ("c", "a", 5.0),
    ]
    assert [pair.control_share for pair in pairs] == [20.0, 5.0, 2.5]
    assert confusion._pairs(shares, None, "abc")[0].control_share is None


def test_the_shown_method_stands_beside_the_control_and_all_others_follow(project):
    drawn = draw(project.read("control", "exp1", "exp2"))
    assert [one.title for one in drawn.main] == ["control", "exp1", "exp1 minus control"]
    assert [one.title for one in drawn.others] == ["teacher", "exp2"]


def test_without_a_control_there_is_no_comparison(project):
    drawn = draw(project.read("exp1"))
    assert [one.title for one in drawn.main] == ["exp1"]
    assert drawn.pairs_method == "exp1"


def test_without_a_distilled_method_the_control_is_shown(project):
    drawn = draw(project.read("control"), shown_method=None)
    assert [one.title for one in drawn.main] == ["control"]
    assert drawn.pairs_method == "control"


@pytest.mark.parametrize(("num_classes", "num_labels"), [(2, 2), (12, 12), (26, 26), (100, 20)])
def test_labels_are_thinned_and_numbers_left_out_where_there_are_many(num_classes, num_labels):
    classes = [f"c{number}" for number in range(num_classes)]
    svg = confusion._draw_matrix(
        np.diag(np.full(num_classes, 77.0)), classes, {"#010101": "x"}, name="m", title="m"
    )
    assert sum(svg.count(f">{name}</text>") for name in classes) == 2 * num_labels
    assert (">77</text>" in svg) == (num_classes <= 12)
