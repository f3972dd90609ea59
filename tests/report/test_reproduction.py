"""The command that makes the numbers again, and what they were made on."""

import shlex

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from distillation.base.params import load_params, make_params
from distillation.report.reproduction import environment_table, reproduce_command, show_value

VALUES = {
    "dataset": "/home/me/my $pictures, (old)",
    "teacher_checkpoint": None,
    "pretrained": False,
    "seeds": (0, 1),
    "methods": (),
    "learning_rate": 0.005,
    "optimizer_options": None,
    "teacher": "vit_tiny.augreg_in21k",
    "method_weights": {"dkd": 8.0},
}


@pytest.fixture
def rerun(tmp_path):
    """Return what the command makes of another work tree's parameters, by the real DVC."""

    def apply(values, there=VALUES):
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(to_dict(there)), encoding="utf-8")
        words = split(reproduce_command(values, {}))
        apply_overrides(path, [words[at + 1] for at, word in enumerate(words) if word == "-S"])
        return yaml.safe_load(path.read_text(encoding="utf-8"))

    return apply


def to_dict(values):
    return {key: list(one) if isinstance(one, tuple) else one for key, one in values.items()}


def split(command):
    """Read a command as a shell does."""
    return shlex.split(command.replace("\\\n", " "))


def test_the_command_sets_every_parameter(rerun):
    assert split(reproduce_command(VALUES, {}))[:3] == ["dvc", "exp", "run"]
    other = {**dict.fromkeys(VALUES, 7), "method_weights": {"dkd": 1.0, "dist": 2.0}}
    assert rerun(VALUES, there=other) == to_dict(VALUES)


@pytest.mark.parametrize(
    "options",
    [None, {}, {"momentum": 0.9}, {"betas": [0.9, 0.99], "nesterov": True, "mode": "a, b: {c}"}],
)
@pytest.mark.parametrize("there", [None, {"nesterov": False, "eps": 1e-8}])
def test_options_are_those_of_the_run_whatever_is_there(options, there, rerun):
    values = {**VALUES, "optimizer_options": options}
    assert rerun(values, there={**VALUES, "optimizer_options": there}) == to_dict(values)


@pytest.mark.parametrize(
    "path",
    ["päth (1)", "a=b", "50%", "it's", 'say "hi"', "${teacher}", "C:\\data", 'a\\"', "end\\",
     "1e-3", "true", "Null", "nan", "~", "[x]", "a, b", "", " ", "#x", "a: b"],
)  # fmt: skip
def test_a_path_survives_shell_and_dvc(path, rerun):
    assert rerun({**VALUES, "dataset": path})["dataset"] == path


def test_the_committed_parameters_can_be_set(repository, rerun):
    text = (repository / "params.yaml").read_text(encoding="utf-8")
    params = load_params(repository / "params.yaml")
    values = {name: getattr(params, name) for name in vars(params)}
    committed = yaml.safe_load(text)
    other = dict.fromkeys(committed, 7)
    assert make_params(rerun(values, there=other)) == params


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
    found = split(reproduce_command(VALUES, named))
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
