"""Learning curves of methods that differ in epochs, seeds and terms."""

import pytest

from distillation.report import curves
from distillation.report.curves import draw_curves
from distillation.report.palette import make_styles, stand_ins


def draw(inputs):
    styles = make_styles(inputs.methods)
    return draw_curves(inputs, styles, stand_ins(styles.values()))


def test_every_term_has_a_panel_with_the_methods_that_have_it(project):
    drawn = draw(project.read("control", "exp1"))
    assert [panel.title for panel in drawn.panels] == [
        "training: loss",
        "training: label",
        "training: logit",
        "training: feature",
        "validation: loss",
    ]
    has_control = ["var(--method-1)" in panel.picture for panel in drawn.panels]
    assert has_control == [True, False, False, False, True]
    assert all("var(--method-2)" in panel.picture for panel in drawn.panels)
    for picture in (drawn.wide, drawn.narrow):
        assert all(f"var(--method-{number})" in picture for number in (0, 1, 2))
    assert drawn.without_history == []


def test_an_method_without_history_is_named_and_the_others_are_drawn(project):
    content = project.read("exp1").methods["exp1"]
    records = [{key: record[key] for key in record if key != "history"} for record in content]
    project.write("seeds/exp1.json", {"seeds": records})
    drawn = draw(project.read("control", "exp1"))
    assert drawn.without_history == ["exp1"]
    assert "var(--method-2)" not in drawn.wide
    assert draw(project.read("exp1")) is None


def test_untrained_methods_have_no_curves(make_project):
    assert draw(make_project(epochs=0).read("control", "exp1")) is None


def test_seeds_that_stopped_early_end_the_mean_line():
    histories = [[{"x": 1.0}, {"x": 2.0}, {"x": 3.0}], [{"x": 3.0}, {"x": 6.0}]]
    values = curves._curves(histories, lambda epoch: epoch["x"])
    assert values.tolist() == [[1.0, 2.0], [3.0, 6.0]]
    assert curves._curves(histories, lambda epoch: None) is None


def test_a_term_that_spans_decades_gets_a_logarithmic_axis(make_project):
    few, many = make_project(epochs=3), make_project(epochs=40)
    label = {"few": draw(few.read("exp1")), "many": draw(many.read("exp1"))}
    assert ">0.3</text>" not in label["few"].panels[0].picture
    assert ">0.3</text>" in label["many"].panels[0].picture


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_band_is_drawn_from_two_seeds_on(make_project, seeds):
    picture = draw(make_project(seeds=seeds).read("exp1")).wide
    assert ("FillBetween" in picture or "PolyCollection" in picture) == (len(seeds) > 1)
