"""A grid as DVC reads it, and names that stay the same."""

import subprocess

import pytest

from distillation.cluster.errors import SweepError
from distillation.cluster.variants import MAX_NAME, make_variants


def names(*grid):
    return [variant.name for variant in make_variants(grid)]


def test_a_grid_is_all_combinations():
    variants = make_variants(["alpha=0.3,0.5", "temperature=2,4", "seeds=[0,1]"])
    assert [variant.overrides for variant in variants] == [
        ("alpha=0.3", "temperature=2", "seeds=[0,1]"),
        ("alpha=0.3", "temperature=4", "seeds=[0,1]"),
        ("alpha=0.5", "temperature=2", "seeds=[0,1]"),
        ("alpha=0.5", "temperature=4", "seeds=[0,1]"),
    ]


def test_a_name_is_the_parameters_in_whatever_order():
    assert names("alpha=0.3,0.5", "temperature=2") == [
        "alpha=0.3,temperature=2",
        "alpha=0.5,temperature=2",
    ]
    assert names("temperature=2", "alpha=0.5") == ["alpha=0.5,temperature=2"]


def test_the_last_of_two_values_counts_and_names():
    assert names("alpha=1", "alpha=2") != names("alpha=2", "alpha=1")


def test_what_is_twice_in_a_grid_runs_once():
    assert names("alpha=0.3,0.3") == ["alpha=0.3"]


@pytest.mark.parametrize(
    "grid",
    [
        ["seeds=[0,1]"],
        ['dataset="/päth (1)"'],
        ["teacher=hf-hub:timm/resnet50.a1_in1k"],
        ["teacher=x.lock"],
        ["dataset=a/../b"],
        ["~optimizer_options"],
        ["++optimizer_options.momentum=0.9"],
        ["other.yaml:key=1"],
        [f"dataset={'x' * 300}"],
    ],
)
def test_git_takes_every_name(grid):
    (name,) = names(*grid)
    assert len(name) <= MAX_NAME
    assert "/" not in name
    subprocess.run(["git", "check-ref-format", f"refs/exps/{name}"], check=True)


def test_values_that_only_git_would_confuse_have_names_of_their_own():
    several = names("dataset=a/b") + names("dataset=a:b") + names('dataset="a b"')
    assert len(set(several)) == 3


@pytest.mark.parametrize("grid", ["alpha", "alpha=[1", "alpha=glob(*)"])
def test_what_dvc_cannot_read_is_named(grid):
    with pytest.raises(SweepError, match=r"^-S alpha.*; must be NAME=VALUE or NAME=VALUE,VALUE"):
        make_variants([grid])
