"""A method looks the same in every report, and unlike every other."""

from distillation.base.methods import DEFAULT_METHODS, further_methods
from distillation.report.palette import make_looks, stand_ins


def test_an_method_looks_the_same_whatever_else_was_run():
    everything = make_looks([*DEFAULT_METHODS, *further_methods(), "mine"])
    for name in (*DEFAULT_METHODS, *further_methods()):
        assert make_looks([name])[name] == everything[name]


def test_no_two_methods_look_alike():
    looks = make_looks([*DEFAULT_METHODS, *further_methods(), "mine", "yours"]).values()
    for scheme in (0, 1):
        assert len({(look.hues[scheme], look.dash) for look in looks}) == len(looks)
    assert len({look.variable for look in looks}) == len({look.color for look in looks})
    assert len({look.color for look in looks}) == len(looks)


def test_stand_ins_do_not_collide():
    looks = make_looks(DEFAULT_METHODS).values()
    assert len(stand_ins(looks)) == 4 + len(looks)
    assert stand_ins(looks)[next(iter(looks)).color] == "var(--method-0)"
