"""Accuracy against cost, from the exported models' file."""

import pytest

from distillation.report.inputs import ReportError
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
