import re
import subprocess
import sys

import pytest
import yaml

from distillation.base.methods import further_methods
from distillation.base.params import PARAM_NAMES, ParamError, load_params, make_params, to_dict
from distillation.cli.options import build_parser, chosen_methods, params_from, parse_options


@pytest.fixture(autouse=True)
def params_file(tmp_path, tiny_values, monkeypatch):
    """Give a tiny parameter file, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tiny_values), encoding="utf-8")
    return path


def read(*arguments):
    return params_from(parse_options(arguments))


def test_without_options_the_parameters_are_those_of_the_file():
    assert read() == load_params()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("alpha", "1e-3", 0.001),
        ("seeds", "3", (3,)),
        ("seeds", "[3, 1]", (3, 1)),
        ("compile", "true", "true"),
        ("compile", "off", "false"),
        ("pretrained", "yes", True),
        ("teacher_stem_stride", "null", None),
        ("methods", "[dkd, dist]", ("dkd", "dist")),
        ("method_weights", "{dkd: 1e1}", {"dkd": 10.0}),
        ("student", "1e3", "1e3"),
        ("teacher", "[", "["),
        ("dataset", "010", "010"),
        ("teacher_checkpoint", "#1: x", "#1: x"),
        ("teacher_checkpoint", "null", None),
        ("export_method", "null", None),
        ("export_method", "exp1", "exp1"),
    ],
)
def test_a_value_is_read_as_in_the_file_and_a_name_or_path_is_a_text(tmp_path, name, text, value):
    (tmp_path / text).touch()
    assert getattr(read(f"--{name.replace('_', '-')}={text}"), name) == value


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ParamError) as caught:
        read(
            "--alpha", "[", "--epochs", "010", "--seeds", "two", "--dataset=", "--num-views", "&a 3"
        )
    lines = str(caught.value).splitlines()
    assert [line.partition("; must be ")[0] for line in lines] == [
        "dataset: got ''", "epochs: got '010'", "seeds: got 'two'", "num_views: got '&a 3'",
        "alpha: got '['",
    ]  # fmt: skip


def test_a_path_to_nothing_is_told():
    with pytest.raises(ParamError, match=r"^student_checkpoint: got 'gone\.pt'; must be the path"):
        read("--student-checkpoint", "gone.pt")


def test_a_teacher_from_a_checkpoint_is_not_trained_unless_told(tmp_path):
    (tmp_path / "t.pt").touch()
    assert read("--teacher-checkpoint", "t.pt").teacher_epochs == 0
    assert read("--teacher-checkpoint", "t.pt", "--teacher-epochs", "3").teacher_epochs == 3
    assert read("--teacher-checkpoint", "null").teacher_epochs == load_params().teacher_epochs


def test_groups_of_methods_come_in_the_order_of_the_table(tiny_values):
    def choose(*chosen, methods=()):
        return chosen_methods(chosen, make_params({**tiny_values, "methods": list(methods)}))

    further = list(further_methods())
    assert choose("all") == ["control", "exp1", "exp2", "exp3"]
    assert choose("all", methods=["dkd"]) == ["control", "exp1", "exp2", "exp3", "dkd"]
    assert choose("2", methods=["dkd"]) == ["exp2"]
    assert choose("exp2") == ["exp2"]
    assert choose("methods") == further
    assert choose("dkd", "2", "control") == ["control", "exp2", "dkd"]
    assert choose("methods", "3", "all", "dkd") == [*choose("all"), *further]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temp", "1"], "unrecognized arguments: --temp 1"),
        (["--params"], "argument --params: expected one argument"),
        (["--experiment", "4"], "argument --experiment: invalid choice: '4'"),
        (["--experiment", "exp4"], "argument --experiment: invalid choice: 'exp4'"),
        (["--processes", "0"], "argument --processes: got '0'; allowed: a whole number at least 1"),
        (["predictt"], "unrecognized arguments: predictt"),
    ],
)
def test_wrong_usage_has_a_status_of_its_own(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        parse_options(arguments)
    assert stop.value.code == 2
    usage, *_, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: python -m distillation ")
    assert error.startswith(f"python -m distillation: error: {message}")


# The help


@pytest.fixture
def help_text(capsys):
    """Return what the help prints, without its line breaks."""

    def print_help(*arguments):
        with pytest.raises(SystemExit) as stop:
            parse_options([*arguments, "--help"])
        assert stop.value.code == 0
        return " ".join(capsys.readouterr().out.split())

    return print_help


def test_every_parameter_is_an_option_with_a_description(help_text, tiny_values):
    text = help_text()
    for name in PARAM_NAMES:
        assert f"--{name.replace('_', '-')} VALUE " in text
    assert (
        "--alpha VALUE Weight of the logit distillation. Allowed: a number, at least 0 and at most "
        f"1,000,000,000. (default: {tiny_values['alpha']})"
    ) in text
    assert "Allowed: auto, fp32 or bf16. (default: auto)" in text


def test_the_help_is_in_sections_and_names_the_further_commands(help_text):
    text = help_text()
    titles = [
        "what to run", "data", "models", "the teacher's training",
        "the students' training, the same for every method", "all trainings", "how it is computed",
        "what is shipped", "the distillation objective", "further methods",
    ]  # fmt: skip
    positions = [text.index(f" {title}: ") for title in titles]
    assert positions == sorted(positions)
    first_of_section = {"data": "dataset", "models": "teacher", "all trainings": "warmup-fraction"}
    for title, option in first_of_section.items():
        assert re.search(rf" {title}: (Defaults .*\.yaml\. )?--{option} VALUE", text)
    for command in ("compare", "predict"):
        assert f"python -m distillation {command} --help" in text


def test_the_help_shows_the_defaults_of_the_chosen_file(help_text, tmp_path, tiny_values):
    other = {**tiny_values, "alpha": 0.25, "seeds": [3, 4], "compile": False, "epochs": 77}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    text = help_text("--params", "other.yaml")
    assert text.count("Defaults of this and the following groups are those of other.yaml.") == 1
    for default in ("0.25", "[3, 4]", "77", "null", "{attention: 100.0, "):
        assert f"(default: {default}" in text
    assert "(default: 77)" not in help_text()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "other.yaml: cannot be read"),
        ("[", "other.yaml: not valid YAML"),
        ("a: 1", "other.yaml: unknown parameter 'a' = 1; remove it other.yaml: missing parameter"),
    ],
)
def test_the_help_needs_no_whole_parameter_file(help_text, tmp_path, content, problem):
    if content is not None:
        (tmp_path / "other.yaml").write_text(content, encoding="utf-8")
    text = help_text("--params", "other.yaml")
    assert f"data: Defaults are not shown: {problem}" in text
    assert "--alpha VALUE Weight of the logit distillation." in text
    assert "(default: auto)" in text  # of --device, which is no parameter


def test_the_defaults_shown_are_options_that_give_the_same_parameters():
    shown = {
        action.dest.removeprefix("param_"): re.search(r"\(default: (.*)\)$", action.help)[1]
        for action in build_parser()._actions
        if action.dest.startswith("param_")
    }
    arguments = [f"--{name.replace('_', '-')}={text}" for name, text in shown.items()]
    assert to_dict(read(*arguments)) == to_dict(load_params())


def test_the_help_does_not_wait_for_torch(repository):
    code = (
        "import sys; from distillation.cli import options, train; options.build_parser(); "
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
