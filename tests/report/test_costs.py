"""The section on what training cost."""

import dataclasses

import pytest

from distillation.report.costs import describe_equal_cost, draw_costs
from distillation.report.page import render
from distillation.report.palette import make_styles, stand_ins
from tests.report.conftest import PARAMETERS, make_record


@pytest.fixture
def costs(project):
    """Write costs for the teacher, its outputs, the control at three lengths, and exp1."""
    seconds = {"teacher": 600.0, "targets": 60.0, "control": 120.0, "exp1": 180.0}
    lengths = {1: (30.0, 55.0), 60: (1800.0, 95.0)}
    for epochs, (spent, acc) in lengths.items():
        name = f"control_{epochs}"
        seconds[name] = spent
        project.write(
            f"costs/lengths/{name}.json", {"data": "shapes", "seeds": [make_record(0, acc, epochs)]}
        )
    for name, spent in seconds.items():
        project.write(f"costs/{name}.json", {"unit": "core", "seconds": [spent]})
    return {**PARAMETERS, "control_epochs": tuple(lengths)}


def draw(inputs):
    styles = make_styles(inputs.methods)
    return draw_costs(inputs, styles, stand_ins(styles.values()))


def test_a_student_stands_there_with_and_without_its_teacher(project, costs):
    found = draw(project.read("control", "exp1", parameters=costs))
    assert [(row.name, row.point.minutes, row.total_minutes) for row in found.rows] == [
        ("control", 0.5, 0.5), ("control", 2.0, 2.0), ("control", 30.0, 30.0), ("exp1", 3.0, 14.0),
    ]  # fmt: skip
    assert [row.control_acc is None for row in found.rows] == [True, True, True, False]
    middle = found.rows[1].point.acc
    assert middle < found.rows[3].control_acc < 95.0
    for text in ("training time, core-minutes", "exp1", "teacher", "1 epoch", "3 epochs"):
        assert text in found.wide
        assert text in found.narrow


def test_the_page_tells_what_labels_alone_reach(project, costs, undrawn):
    page = render(project.read("control", "exp1", parameters=costs))
    assert "several lengths" in page
    assert "(11.0 core-minutes) added" in page
    assert "<td>not measured</td>" not in page
    short = render(project.read("control", "exp1"))
    assert "the parameter control_epochs adds others" in short
    assert "<td>not measured</td>" in short


def test_without_the_control_there_is_nothing_to_compare(project, undrawn):
    inputs = project.read("exp1")
    assert draw(inputs) is None
    assert "There is nothing to compare: the control is missing" in render(inputs)


def test_given_weights_are_said_to_have_cost_something(project, costs, undrawn):
    sentence = "what those had cost is not counted"
    assert sentence not in render(project.read("control", "exp1", parameters=costs))
    given = {**costs, "pretrained": True}
    assert sentence in render(project.read("control", "exp1", parameters=given))
    student_alone = {**given, "teacher_pretrained": False}
    assert sentence not in render(project.read("control", "exp1", parameters=student_alone))


def test_a_length_without_its_training_is_an_error(project):
    with pytest.raises(Exception, match=r"control_7\.json"):
        project.read("control", "exp1", parameters={**PARAMETERS, "control_epochs": (7,)})


def test_the_head_says_whether_it_pays_if_the_teacher_is_yet_to_be_trained(project, costs, undrawn):
    inputs = project.read("control", "exp1", parameters=costs)
    found, (exp1,) = inputs.costs, inputs.costs.distilled
    start = "Teacher, its outputs and one student of exp1 took 14.0 core-minutes"
    alone = f"{start}. In that time labels alone reach about {found.control_at(14.0):.2f} %"
    better = f"{alone}, more than exp1’s {exp1.acc:.2f} %: if the teacher has yet to be trained"
    assert describe_equal_cost(found, "exp1").startswith(better)
    assert better.replace(" %", "\u00a0%") in render(inputs)
    good = dataclasses.replace(found, distilled=[dataclasses.replace(exp1, acc=99.0)])
    assert describe_equal_cost(good, "exp1") == (f"{alone}, exp1 99.00 %.")
    short = project.read("control", "exp1").costs
    assert describe_equal_cost(short, "exp1") == (
        f"{start}: what labels alone reach in that time was not measured (control_epochs)."
    )
    given = dataclasses.replace(found, teacher=dataclasses.replace(found.teacher, minutes=0.0))
    assert describe_equal_cost(given, "exp1") is None
    assert describe_equal_cost(found, None) is None
