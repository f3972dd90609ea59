"""The command that makes the numbers again, and what they were made on."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from distillation.base.params import load_params
from distillation.report.reproduction import (
    environment_table,
    flatten,
    reproduce_command,
    show_value,
)

VALUES = {
    "dataset": "/home/me/my $pictures, (old)",
    "teacher_checkpoint": None,
    "pretrained": False,
    "seeds": (0, 1),
    "methods": (),
    "learning_rate": 0.005,
    "teacher": "vit_tiny.augreg_in21k",
    "method_weights": {"dkd": 8.0},
}


def parse(command):
    """Read a command as a shell and then DVC do."""
    words = shlex.split(command.replace("\\\n", " "))
    overrides = [words[place + 1] for place, word in enumerate(words) if word == "-S"]
    parsed = OverridesParser.create().parse_overrides(overrides)
    return words, {one.key_or_group: one.value() for one in parsed}


def test_the_command_sets_every_parameter():
    words, found = parse(reproduce_command(VALUES, {}))
    assert words[:3] == ["dvc", "exp", "run"]
    assert found.pop("method_weights.dkd") == 8.0
    assert str(found.pop("dataset")).strip("\"'") == VALUES["dataset"]
    assert found == {
        "teacher_checkpoint": None,
        "pretrained": False,
        "seeds": [0, 1],
        "methods": [],
        "learning_rate": 0.005,
        "teacher": "vit_tiny.augreg_in21k",
    }


def test_the_committed_parameters_can_be_set(repository):
    params = load_params(repository / "params.yaml")
    values = {name: getattr(params, name) for name in vars(params)}
    _, found = parse(reproduce_command(values, {}))
    assert set(found) == {key for key, _ in flatten(values)}
    assert found["learning_rate"] == params.learning_rate


@pytest.mark.parametrize(
    ("environments", "words"),
    [
        ([("cpu", 2), ("cpu", 2)], ["DISTILLATION_DEVICE=cpu", "OMP_NUM_THREADS=2"]),
        ([("cpu", 1), ("cpu", 2)], ["DISTILLATION_DEVICE=cpu"]),
        ([("NVIDIA H100", 2)], ["DISTILLATION_DEVICE=cuda", "OMP_NUM_THREADS=2"]),
        ([], []),
    ],
)
def test_device_and_threads_stand_in_front_where_all_had_the_same(environments, words):
    named = {
        str(place): {"device": device, "threads": threads}
        for place, (device, threads) in enumerate(environments)
    }
    found, _ = parse(reproduce_command(VALUES, named))
    assert found[: found.index("dvc")] == words


def test_the_environment_says_who_differed():
    one, other = {"torch": "2.11", "threads": 1}, {"torch": "2.11", "threads": 2}
    assert environment_table({"teacher": one, "exp1": other, "exp2": other}) == [
        ("torch", "2.11"),
        ("threads", "1 (teacher); 2 (exp1, exp2)"),
    ]
    assert environment_table({"exp1": {}, "exp2": one})[0] == (
        "torch",
        "not recorded (exp1); 2.11 (exp2)",
    )
    assert environment_table({}) == []


def test_values_look_as_in_the_parameter_file():
    assert [show_value(one) for one in (None, True, 0.1, "auto", "a b", ("x", "y"))] == [
        "null",
        "true",
        "0.1",
        "auto",
        '"a b"',
        "[x,y]",
    ]
