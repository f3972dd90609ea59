"""A method looks the same in every report, and unlike every other."""

from distillation.base.methods import DEFAULT_METHODS, further_methods
from distillation.report.palette import make_styles, stand_ins


def test_an_method_looks_the_same_whatever_else_was_run():
    everything = make_styles([*DEFAULT_METHODS, *further_methods(), "mine"])
    for name in (*DEFAULT_METHODS, *further_methods()):
        assert make_styles([name])[name] == everything[name]


def test_no_two_methods_look_alike():
    styles = make_styles([*DEFAULT_METHODS, *further_methods(), "mine", "yours"]).values()
    for scheme in (0, 1):
        assert len({(style.hues[scheme], style.dash) for style in styles}) == len(styles)
    assert len({style.variable for style in styles}) == len({style.color for style in styles})
    assert len({style.color for style in styles}) == len(styles)


def test_stand_ins_do_not_collide():
    styles = make_styles(DEFAULT_METHODS).values()
    assert len(stand_ins(styles)) == 4 + len(styles)
    assert stand_ins(styles)[next(iter(styles)).color] == "var(--method-0)"
