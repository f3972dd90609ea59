"""All of timm's families: each works in every role and method, or is refused in one sentence."""

import re

import pytest
import timm

from benchmarks.families import LEFT_OUT, MEMBERS, STRIDES, examine, main, working_size
from benchmarks.layer_order import describe_norm
from distillation.base.methods import EXPERIMENTS
from distillation.models.creation import create_classifier

OWN_MAP_ONLY = (
    "is built for the map that its own stem makes, and cannot be run with another; "
    "allowed for it: null"
)
PATCHES = "has no overlapping first convolution; allowed for it: null"

# Of each kind one: what its features are with its own stem, and with stride 1 or why not.
CHARACTERISTIC = {
    "test_resnet": ((96, 1, 1), (96, 2, 2)),
    "test_byobnet": ((256, 1, 1), (256, 2, 2)),
    "fastvit_t8": ((768, 1, 1), (768, 2, 2)),
    "test_mambaout": ((64, 1, 1), (64, 2, 2)),
    "test_nfnet": ((192, 1, 1), (192, 2, 2)),
    "test_vit": ((64, 2, 2), PATCHES),
    "test_coatnet": ((128, 1, 1), OWN_MAP_ONLY),
    "levit_128s": ((384, 1, 1), OWN_MAP_ONLY),
    "coat_tiny": ((), PATCHES),
    "pit_ti_distilled_224": ((256,), OWN_MAP_ONLY),
    "efficientvim_m1": ((), ()),
}


def assert_one_sentence(text, name):
    assert name in text
    assert "allowed" in text
    assert "\n" not in text
    assert ". " not in text
    assert len(text) < 250


def check(name, stride, size):
    """Examine a model, and hold its methods against what features it has."""
    outcome = examine(name, stride, image_size=size)
    if outcome.refusal:
        assert_one_sentence(outcome.refusal, name)
        return outcome
    needing = {3: (), 1: ("exp3",), 0: ("exp2", "exp3")}[len(outcome.features)]
    expected = {(role, method) for role in ("teacher", "student") for method in needing}
    assert set(outcome.refused_methods) == expected
    for (role, _), sentence in outcome.refused_methods.items():
        assert_one_sentence(sentence, f"{role}: got {name}")
    return outcome


@pytest.mark.parametrize("name", CHARACTERISTIC)
def test_a_family_of_each_kind(name):
    for stride, expected in zip(STRIDES, CHARACTERISTIC[name], strict=True):
        outcome = check(name, stride, 32)
        if isinstance(expected, str):
            assert outcome.refusal == f"model_stem_stride: got 1, but {name} {expected}"
        else:
            assert outcome.refusal == ""
            assert outcome.features == expected


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(set(MEMBERS) - set(CHARACTERISTIC)))
def test_every_other_family(name):
    size = working_size(name)
    outcomes = [check(name, stride, size) for stride in STRIDES]
    assert not outcomes[0].refusal  # with its own stem, at a size of its own


def test_every_family_has_a_member():
    families = {
        name: module for module in timm.list_modules() for name in timm.list_models(module=module)
    }
    assert {families[name] for name in MEMBERS} | set(LEFT_OUT) == set(timm.list_modules())
    assert set(CHARACTERISTIC) <= set(MEMBERS)
    assert EXPERIMENTS[:3] == ("exp1", "exp2", "exp3")


# The page


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("test_vit", "after the last norm"),
        ("test_efficientnet", "after the last norm"),
        ("test_convnext", "before the head's norm"),
        ("test_resnet", "after the last block"),
    ],
)
def test_where_the_features_are_taken_is_seen_from_the_layers(name, norm):
    model = create_classifier(name, num_classes=3, image_size=32, seed=0)
    assert describe_norm(model, 32) == norm
    assert all(not module._forward_hooks for module in model.modules())


def test_the_page_has_a_row_for_every_member(repository):
    page = (repository / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [re.split(r" *\| *", line) for line in page.splitlines() if line.count("|") == 8]
    cells = {row[2].strip("`"): row for row in rows[2:]}
    assert tuple(cells) == MEMBERS
    for name, (own, fine) in CHARACTERISTIC.items():
        for cell, expected in zip(cells[name][4:6], (own, fine), strict=True):
            if isinstance(expected, str):
                assert cell == f"refused: {expected.split(';')[0]}"
            else:
                size = " × ".join(str(side) for side in expected[1:])
                assert cell.startswith(
                    f"{size} map" if size else ("mean" if expected else "logits")
                )
    assert all(family in page for family in LEFT_OUT)


def test_the_command_prints_the_rows_of_those_named(capsys):
    assert main(["test_resnet"]) == 0
    printed = capsys.readouterr().out
    row = r"\| resnet +\| `test_resnet` +\| +32 \| 1 × 1 map +\| 2 × 2 map +\| +0 \| after the last"
    assert re.search(row, printed)
