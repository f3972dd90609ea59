"""An arm looks the same in every report, and unlike every other."""

from distillation.methods import ARMS, find_methods
from distillation.report.palette import make_looks, stand_ins


def test_an_arm_looks_the_same_whatever_else_was_run():
    everything = make_looks([*ARMS, *find_methods(), "mine"])
    for name in (*ARMS, *find_methods()):
        assert make_looks([name])[name] == everything[name]


def test_no_two_arms_look_alike():
    looks = make_looks([*ARMS, *find_methods(), "mine", "yours"]).values()
    for scheme in (0, 1):
        assert len({(look.hues[scheme], look.dash) for look in looks}) == len(looks)
    assert len({look.variable for look in looks}) == len({look.color for look in looks})
    assert len({look.color for look in looks}) == len(looks)


def test_stand_ins_do_not_collide():
    looks = make_looks(ARMS).values()
    assert len(stand_ins(looks)) == 4 + len(looks)
    assert stand_ins(looks)[next(iter(looks)).color] == "var(--arm-0)"
