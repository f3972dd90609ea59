"""Recall by class against the control."""

import numpy as np
from sklearn.metrics import recall_score

from distillation.report import recall
from distillation.report.palette import make_styles, stand_ins
from distillation.report.recall import draw_recalls


def draw(inputs, *, shown_method="exp1"):
    styles = make_styles(inputs.methods)
    return draw_recalls(inputs, styles, stand_ins(styles.values()), shown_method=shown_method)


def test_recalls_are_those_of_scikit_learn(project):
    inputs = project.read("control", "exp1", "exp3")
    drawn = draw(inputs)
    assert drawn.methods == ["exp1", "exp3"]

    def recalls(name):
        found = inputs.predictions[name]
        each = [recall_score(found.labels, one.argmax(1), average=None) for one in found.logits]
        return 100 * np.mean(each, axis=0)

    control = recalls("control")
    np.testing.assert_allclose([row.control for row in drawn.rows], control)
    for place, method in enumerate(drawn.methods):
        changes = [row.changes[place] for row in drawn.rows]
        np.testing.assert_allclose(changes, recalls(method) - control, atol=1e-9)


def test_changes_by_seed_are_paired(project):
    changes, of_seeds = recall._changes(project.read("control", "exp1"), "exp1")
    assert of_seeds.shape == (2, 3)
    np.testing.assert_allclose(changes, of_seeds.mean(axis=0))


def test_only_the_classes_at_either_end_have_a_bar(make_project):
    classes = [f"c{number}" for number in range(50)]
    inputs = make_project(classes=classes, num_test=500, seeds=(0,)).read("control", "exp1")
    drawn = draw(inputs)
    assert drawn.num_shown == 20
    assert sum(f">{name}</text>" in drawn.picture for name in classes) == 20
    assert len(drawn.rows) == 50


def test_a_class_without_test_images_has_no_change(make_project):
    classes = [f"c{number}" for number in range(5)]
    drawn = draw(make_project(classes=classes, num_test=4).read("control", "exp1"))
    assert [row.changes[0] is None for row in drawn.rows] == [False] * 4 + [True]
    assert [row.control is None for row in drawn.rows] == [False] * 4 + [True]
    assert (drawn.num_shown, drawn.num_present) == (4, 4)
    assert [f">{name}</text>" in drawn.picture for name in classes] == [True] * 4 + [False]


def test_there_is_nothing_to_compare_without_a_control_or_a_method(project):
    assert draw(project.read("exp1")) is None
    assert draw(project.read("control"), shown_method=None) is None
