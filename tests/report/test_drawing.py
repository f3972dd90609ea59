"""Figures as inline SVG: the same bytes, no stand-in colours, text as text."""

import re

import matplotlib
import pytest

from distillation.report.drawing import new_figure, shorten, to_svg, use_log_scale, whole_ticks
from distillation.report.palette import make_styles, stand_ins

STYLES = make_styles(["control", "exp1"])
COLORS = stand_ins(STYLES.values())


def draw(name="one", *, label="label", title="A picture"):
    with new_figure(300, 200) as (figure, axes):
        axes.plot([1, 2, 3], [0.1, 1.0, 30.0], color=STYLES["exp1"].color)
        axes.fill_between([1, 2, 3], [0, 1, 2], color=STYLES["control"].color, alpha=0.1)
        axes.set_xlabel(label)
        return to_svg(figure, name=name, title=title, colors=COLORS)


def test_the_same_figure_gives_the_same_bytes():
    assert draw() == draw()


def test_a_users_matplotlibrc_changes_nothing():
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        changed = draw()
    assert changed == draw()


def test_colours_are_css_variables():
    svg = draw()
    assert "var(--method-2)" in svg
    assert "var(--muted)" in svg
    assert not any(color in svg for color in COLORS)


def test_ids_are_the_pictures_own_and_every_reference_is_met():
    first, second = draw("one"), draw("two")
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in zip((first, second), ids, strict=True):
        used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
        assert used
        assert {a or b for a, b in used} <= own


@pytest.mark.parametrize("text", ["$x_1$", "日本語", "#010101", 'id="a" style="url(#b) #010101"'])
def test_a_label_is_shown_as_it_is(text):
    assert f">{text}</text>" in draw(label=text)


def test_labels_and_titles_are_escaped():
    svg = draw(label="<script>a</script>", title='"><script>b</script>')
    assert "<script" not in svg
    assert "&lt;script&gt;a&lt;/script&gt;" in svg


def test_nothing_names_a_time_or_a_program():
    assert "metadata" not in draw()
    assert not re.search(r"20\d\d-\d\d-\d\d", draw())


def test_axes_have_plain_numbers():
    with new_figure(300, 200) as (figure, axes):
        axes.plot([1, 2], [0.01, 30.0])
        use_log_scale(axes)
        whole_ticks(axes)
        svg = to_svg(figure, name="log", title="log", colors=COLORS)
    labels = re.findall(r">([^<>\s]+)</text>", svg)
    assert {"0.01", "0.1", "1", "10"} <= set(labels)
    assert "1.5" not in labels


def test_shorten():
    assert shorten("automobile", 10) == "automobile"
    assert shorten("an automobile", 6) == "an au…"
