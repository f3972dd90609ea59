import csv
import json
import subprocess
import sys

import pytest
import yaml

from distillation import cli
from distillation.params import PARAM_NAMES, Params

TABLE_COLUMNS = [
    "exp",
    "before_acc",
    "after_acc",
    "gain_acc",
    "before_f1",
    "after_f1",
    "gain_f1",
    "best_acc",
    "best_f1",
    "acc_over_control",
]


@pytest.fixture
def params_file(tmp_path, tiny_values, monkeypatch):
    """Give a tiny parameter file, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({**tiny_values, "epochs": 1}), encoding="utf-8")
    return path


def test_all_prints_what_the_mission_asks_and_writes_json(params_file, tmp_path, capsys):
    assert cli.main(["--experiment", "all", "--results-path", "results.json"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "teacher test_efficientnet before distillation: loss ",
        "student test_resnet before distillation: loss ",
        "control epoch 1/1: loss ",
        "exp2 epoch 1/1: loss ",
        "exp3 final: loss ",
        "One seed: ",
        "Data: digits (scikit-learn).",
    ):
        assert line in printed
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["exp"] for row in results["summary"]] == ["control", "exp1", "exp2", "exp3"]
    assert list(results["summary"][0]) == TABLE_COLUMNS
    assert set(results["params"]) == set(PARAM_NAMES)
    assert set(results["baseline"]["teacher"]) == {"model", "loss", "acc", "f1", "trained"}
    for arm in results["arms"].values():
        assert [record["epoch"] for record in arm["history"]] == [1]
        assert set(arm["final"]) == set(arm["best"]) == {"loss", "acc", "f1"}
    assert set(results["arms"]["exp2"]["history"][0]["terms"]) == {
        "loss",
        "label",
        "logit",
        "feature",
    }


def test_one_experiment_writes_its_row_as_csv(params_file, tmp_path, capsys):
    assert cli.main(["--experiment", "1", "--results-path", "results.csv"]) == 0
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["exp"] for row in rows] == ["exp1"]
    assert list(rows[0]) == [*TABLE_COLUMNS, "data"]
    assert rows[0]["data"] == "digits (scikit-learn)"
    assert rows[0]["acc_over_control"] == ""
    assert "No control was run" in capsys.readouterr().out


def test_a_saved_teacher_is_taken_as_it_is(params_file, capsys):
    arguments = ["--experiment", "control", "--epochs", "0"]
    assert cli.main([*arguments, "--save-teacher", "t.safetensors"]) == 0
    first = capsys.readouterr().out
    assert cli.main([*arguments, "--teacher-checkpoint", "t.safetensors"]) == 0
    second = capsys.readouterr().out
    assert "teacher epoch 1/1" in first
    assert "teacher epoch" not in second

    def teacher_line(printed):
        return next(line for line in printed.splitlines() if line.startswith("teacher test_"))

    assert teacher_line(first) == teacher_line(second)


def test_an_untrained_teacher_is_said_to_be_one(params_file, capsys):
    assert cli.main(["--experiment", "control", "--epochs", "0", "--teacher-epochs", "0"]) == 0
    assert "The teacher was never trained" in capsys.readouterr().out


def test_an_interrupted_run_keeps_the_arms_it_finished(params_file, tmp_path, monkeypatch):
    from distillation import comparison

    real = comparison._run_student

    def interrupted(arm, *arguments):
        if arm == "exp1":
            raise KeyboardInterrupt
        return real(arm, *arguments)

    monkeypatch.setattr(comparison, "_run_student", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cli.main(["--experiment", "all", "--results-path", "results.json"])
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["exp"] for row in results["summary"]] == ["control"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--results-path", "results.txt"], "results path: got 'results.txt'; allowed endings"),
        (["--results-path", "gone/results.json"], "allowed: a file in a folder that exists"),
        (["--alpha", "-1"], "alpha: got -1.0; allowed: a number at least 0"),
        (["--alpha", "["], "alpha: got '['; allowed: a number"),
        (["--save-teacher", "t.pt"], "save-teacher: got 't.pt'; allowed ending: .safetensors"),
        (["--alpha", "much"], "alpha: got 'much'; allowed: a number"),
        (["--epochs", "1.5"], "epochs: got 1.5; allowed: a whole number at least 0"),
        (["--temperature", "0"], "temperature: got 0.0; allowed: a number above 0"),
        (["--labeled-fraction", "1.1"], "labeled_fraction: got 1.1; allowed: a number above 0"),
        (["--teacher", "efficientnet_b00"], "did you mean efficientnet_b0"),
        (["--student-checkpoint", "gone.pt"], "student_checkpoint: got 'gone.pt'; allowed"),
        (["--dataset", "gone"], "dataset: got 'gone'; allowed: cifar10, digits or the path"),
        (["--device", "tpu"], "device: got 'tpu'"),
        (["--params", "gone.yaml"], "gone.yaml: cannot be read"),
    ],
)
def test_mistakes_are_told_before_any_work(arguments, message, params_file, capsys):
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.out == ""


def test_an_unknown_option_is_refused(params_file, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--temp", "1"])
    assert stop.value.code == 2


def test_every_parameter_is_an_option_with_a_description(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in PARAM_NAMES:
        assert f"--{name.replace('_', '-')} VALUE" in text
    assert "Weight of the logit distillation. Allowed: a number at least 0." in text


def test_names_stay_texts_whatever_yaml_makes_of_them(params_file):
    options = cli.build_parser().parse_args(["--dataset", "digits", "--student", "1e3"])
    params = cli._params_from(options)
    assert isinstance(params, Params)
    assert params.student == "1e3"


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from distillation import cli; cli.build_parser(); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
