"""Accuracy against cost, from the exported models' file."""

import dataclasses
import re

import pytest

from distillation.report.inputs import ReportError
from distillation.report.labels import spread
from distillation.report.palette import make_styles, stand_ins
from distillation.report.tradeoff import draw_tradeoff


def draw(inputs):
    styles = make_styles(inputs.methods)
    return draw_tradeoff(inputs, styles, stand_ins(styles.values()))


def test_the_models_stand_in_the_table_and_in_both_pictures(project):
    drawn = draw(project.read("control", "exp3"))
    assert [row.name for row in drawn.rows] == ["teacher", "student", "student, int8"]
    assert [row.times_smaller for row in drawn.rows] == pytest.approx([1.0, 2.5, 10.0])
    assert (drawn.method, drawn.seed, drawn.device, drawn.num_threads) == ("exp3", 0, "cpu", 2)
    for picture in (drawn.size, drawn.latency):
        assert all(f">{name}</text>" in picture for name in ("teacher", "student", "int8"))
        assert "var(--method-1)" in picture, "the control is there too"


def test_without_measurements_there_is_nothing_to_draw(make_project):
    assert draw(make_project(deploy=False).read("control")) is None


def test_a_student_that_onnx_cannot_express_has_no_speed_to_draw(project):
    deploy = project.read("control").deploy
    student = deploy["models"]["student"]
    left = {key: value for key, value in student.items() if not key.startswith("latency")}
    project.write("deploy.json", {**deploy, "models": {"student": left}, "agreement": None})
    assert draw(project.read("control")) is None


def test_a_student_without_int8_is_drawn(project):
    deploy = project.read("control").deploy
    del deploy["models"]["student_int8"]
    project.write("deploy.json", deploy)
    assert len(draw(project.read("control")).rows) == 2


@pytest.mark.parametrize("key", ["method", "device", "models"])
def test_what_is_lacking_is_named(project, key):
    deploy = project.read("control").deploy
    del deploy[key]
    project.write("deploy.json", deploy)
    with pytest.raises(ReportError, match=rf"^deploy\.json: lacks or misstates '{key}'"):
        draw(project.read("control"))


def test_a_number_that_is_lacking_is_named(project):
    deploy = project.read("control").deploy
    del deploy["models"]["student"]["latency_ms_p50"]
    project.write("deploy.json", deploy)
    with pytest.raises(ReportError, match="'latency_ms_p50'; run export_student again"):
        draw(project.read("control"))


NINE = (
    *("control", "exp1", "exp2", "exp3", "attention"),
    *("dist", "dkd", "exp3_scaled", "similarity"),
)


@pytest.mark.parametrize("same_cost", [False, True])
def test_labels_of_nine_equal_methods_do_not_overlap(make_project, same_cost):
    project = make_project(methods=NINE)
    inputs = project.read(*NINE)
    equal = {
        name: [{**record, "best_acc": 88.0} for record in records]
        for name, records in inputs.methods.items()
    }
    models = {
        name: values
        | ({"file_bytes": 4e6, "latency_ms_p50": 3.0, "acc": 88.0} if same_cost else {})
        for name, values in inputs.deploy["models"].items()
    }
    inputs = dataclasses.replace(
        inputs,
        outcome=dataclasses.replace(inputs.outcome, methods=equal),
        deploy=inputs.deploy | {"models": models},
    )
    drawn = draw(inputs)
    for picture in (drawn.size, drawn.latency):
        boxes = label_boxes(picture)
        assert boxes.keys() == {*NINE[:-1], "teacher", "student", "int8"}
        for name, (left, right, height) in boxes.items():
            for other, (other_left, other_right, other_height) in boxes.items():
                beside = right < other_left or other_right < left
                assert name == other or beside or abs(height - other_height) > 12, (name, other)
    assert draw(inputs) == drawn, "the same placement each time"


def label_boxes(picture):
    """Return left, right and height of every label but the axes'."""
    boxes = {}
    for style, x, y, text in re.findall(
        r'<text style="([^"]*)" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]+)</text>', picture
    ):
        if "var(--ink)" in style:
            width = 0.6 * float(re.search(r"font-size: ([\d.]+)px", style)[1]) * len(text)
            left = float(x) - width if "text-anchor: end" in style else float(x)
            boxes[text] = (left, left + width, float(y))
    return boxes


def test_places_are_spread_as_little_as_needed():
    assert spread([5.0, 50.0], gap=10, low=0, high=100) == [5.0, 50.0]
    assert spread([50.0, 50.0, 50.0], gap=10, low=0, high=100) == [40.0, 50.0, 60.0]
    assert spread([52.0, 50.0], gap=10, low=0, high=100) == [56.0, 46.0]
    assert spread([99.0, 99.0, 1.0], gap=10, low=0, high=100) == [90.0, 100.0, 1.0]
    assert spread([0.0, 0.0], gap=10, low=0, high=100) == [0.0, 10.0]
    assert spread([], gap=10, low=0, high=100) == []
