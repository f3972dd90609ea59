import csv
import dataclasses
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from distillation.base.locks import one_at_a_time
from distillation.base.params import PARAM_NAMES, load_params
from distillation.base.workspace import Workspace
from distillation.cli import train as cli
from distillation.compare.projects import read_folder
from distillation.data.prepared import load_prepared, save_prepared
from distillation.sources.prepare import prepare
from stages import prepare_data
from tests.results.records import COLUMNS

pytestmark = pytest.mark.slow


@pytest.fixture
def params_file(tmp_path, tiny_values, monkeypatch):
    """Give a tiny parameter file, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({**tiny_values, "epochs": 1}), encoding="utf-8")
    return path


@pytest.fixture
def no_work(monkeypatch):
    """Let the first stage that works fail the test."""
    monkeypatch.setattr(prepare_data, "main", lambda *_: pytest.fail("work was begun"))


def run(*arguments):
    """Run on the CPU, whatever the machine has."""
    return cli.main([*arguments, "--device", "cpu"])


def test_all_prints_what_the_mission_asks_and_writes_json(params_file, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    assert run("--experiment", "all", "--results-path", "results.json") == 0
    printed = caplog.text + capsys.readouterr().out
    for line in (
        "teacher test_efficientnet before distillation, test set: loss ",
        "student test_resnet before distillation, test set: loss ",
        "control epoch 1/1: loss ",
        "exp2 epoch 1/1: loss ",
        "exp3 on the test set: before loss ",
        "One seed: ",
        "Data: digits (scikit-learn).",
    ):
        assert line in printed
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["exp"] for row in results["summary"]] == ["control", "exp1", "exp2", "exp3"]
    assert list(results["summary"][0]) == COLUMNS
    assert set(results["params"]) == set(PARAM_NAMES)
    assert set(results["baseline"]["teacher"]) == {
        "model", "loss", "acc", "f1", "trained", "checkpoint",
    }  # fmt: skip
    for method in results["methods"].values():
        (training,) = method["seeds"]
        assert training["seed"] == 0
        assert [record["epoch"] for record in training["history"]] == [1]
        assert (method["n"], method["after_acc_std"]) == (1, None)
    assert list(results["measures"]) == ["teacher", "control", "exp1", "exp2", "exp3"]
    for name, measures in results["measures"].items():
        assert list(measures["recall"]) == [str(digit) for digit in range(10)]
        assert np.sum(measures["confusion"]) == 359
        if name != "teacher":
            best = results["methods"][name]["best_acc"]
            assert measures["accuracy"]["mean"] == pytest.approx(best, abs=1e-4)
    outputs = {
        method: results["methods"][method]["teacher_outputs"] for method in results["methods"]
    }
    assert outputs == {"control": "none", "exp1": "stored", "exp2": "stored", "exp3": "stored"}
    assert set(results["methods"]["exp2"]["seeds"][0]["history"][0]["terms"]) == {
        "loss",
        "label",
        "logit",
        "feature",
    }


def test_one_experiment_writes_its_row_as_csv(params_file, tmp_path, capsys):
    assert run("--experiment", "1", "--results-path", "results.csv") == 0
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["exp"] for row in rows] == ["exp1"]
    assert list(rows[0]) == [*COLUMNS, "data"]
    assert rows[0]["data"] == "digits (scikit-learn)"
    assert rows[0]["acc_over_control"] == ""
    assert "No control was run" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "why"), [("1", "not name the control"), ("control", "--run-")])
def test_lengths_of_the_control_that_have_no_place_are_left_out(
    method, why, params_file, capsys, caplog
):
    caplog.set_level("INFO")
    assert run("--experiment", method, "--epochs", "0", "--control-epochs", "[1]") == 0
    (line,) = [line for line in caplog.messages if line.startswith("control_epochs is left out: ")]
    assert why in line
    assert "control_1" not in caplog.text


def test_a_saved_teacher_is_taken_as_it_is(params_file, capsys, caplog):
    caplog.set_level("INFO")
    arguments = ["--experiment", "control", "--epochs", "0"]
    assert run(*arguments, "--teacher-epochs", "4", "--save-teacher", "t.safetensors") == 0
    first = capsys.readouterr().out
    assert run(*arguments, "--teacher-checkpoint", "t.safetensors") == 0
    second = capsys.readouterr().out
    assert "The teacher started from the checkpoint t.safetensors: " in second
    assert "The teacher started from" not in first
    assert caplog.text.count("teacher epoch 1/4") == 1

    def teacher_line(printed):
        return next(line for line in printed.splitlines() if line.startswith("Teacher test_"))

    assert teacher_line(first) == teacher_line(second)


def test_an_untrained_teacher_is_said_to_be_one(params_file, capsys):
    assert run("--experiment", "control", "--epochs", "0", "--teacher-epochs", "0") == 0
    assert "The teacher was never trained" in capsys.readouterr().out


def test_an_interrupted_run_keeps_the_methods_it_finished(
    params_file, tmp_path, monkeypatch, capsys
):
    interrupt_at(monkeypatch, "exp1")
    arguments = ["--experiment", "all", "--results-path", "results.json"]
    assert run(*arguments, "--save-teacher", "t.safetensors") == 130
    assert capsys.readouterr().err == (
        "interrupted: t.safetensors holds the trained teacher; results.json holds control\n"
    )
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["exp"] for row in results["summary"]] == ["control"]


def test_a_run_that_is_interrupted_between_trainings_says_where_it_goes_on(
    params_file, monkeypatch, capsys
):
    from distillation.cli import pipeline

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.teacher_targets, "main", interrupt)
    end = "kept holds what is finished, and the same command goes on there\n"
    assert run("--experiment", "1", "--run-dir", "kept") == 130
    assert capsys.readouterr().err == f"interrupted: {end}"
    assert run("--experiment", "1", "--run-dir", "kept", "--save-teacher", "t.safetensors") == 130
    assert capsys.readouterr().err == f"interrupted: t.safetensors holds the trained teacher; {end}"


def test_a_run_folder_is_for_one_command_at_a_time(params_file, tmp_path, capsys):
    with one_at_a_time("python -m distillation", Workspace(root=tmp_path / "kept").locks):
        assert run("--experiment", "1", "--run-dir", "kept") == 1
    assert "error: python -m distillation is running here already" in capsys.readouterr().err
    assert not (tmp_path / "kept" / "params.yaml").exists()


def interrupt_at(monkeypatch, name, look=lambda: None):
    """Press Ctrl-C when the training of this name is about to begin."""
    from distillation.runs import measured

    real = measured.fit

    def fit(training, **options):
        if training.name == name:
            look()
            raise KeyboardInterrupt
        return real(training, **options)

    monkeypatch.setattr(measured, "fit", fit)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Give the folder in which temporary ones are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("ending", ["well", "interrupted"])
def test_the_teachers_stored_outputs_go_away_with_the_run(
    params_file, temporary, monkeypatch, capsys, ending
):
    sizes = []

    def look():
        sizes.append(sum(path.stat().st_size for path in temporary.rglob("*.npy")))

    if ending == "interrupted":
        interrupt_at(monkeypatch, "exp1", look)
        assert run("--experiment", "1") == 130
        assert capsys.readouterr().err.startswith("interrupted: nothing was kept; with --run-dir")
        assert sizes[0] > 0
    else:
        assert run("--experiment", "1") == 0
    assert list(temporary.iterdir()) == []
    assert sorted(path.name for path in params_file.parent.iterdir()) == [
        "params.yaml",
        "temporary",
    ]


# A folder of its own


def files_of(folder):
    """Give the contents of the files that are the same when a run is repeated."""
    changing = {"deploy.json", "index.html", "images_per_second.tsv", "metrics.json"}
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in changing
        and not {".scratch", "costs"} & {*path.parts}
    }


def test_a_run_folder_holds_what_the_pipeline_writes(params_file, tmp_path):
    assert run("--experiment", "control", "2", "--run-dir", "runs/a") == 0
    found = {str(path) for path in files_of(tmp_path / "runs/a")}
    for name in ("control", "exp2"):
        assert {
            f"models/students/{name}.safetensors",
            f"data/predictions/{name}.npz",
            f"metrics/{name}.json",
            f"metrics/seeds/{name}.json",
            f"metrics/live/{name}/seed0/plots/metrics/validation/acc.tsv",
            f"metrics/confusion/{name}.csv",
        } <= found
    costs = {path.stem for path in (tmp_path / "runs/a/metrics/costs").iterdir()}
    assert costs == {"teacher", "targets", "control", "exp2"}
    assert {"models/teacher.safetensors", "metrics/summary.json", "params.yaml"} <= found
    assert (tmp_path / "runs/a/report/index.html").exists()
    assert load_params(tmp_path / "runs/a/params.yaml") == load_params()


def test_an_interrupted_run_goes_on_in_its_folder_and_trains_nothing_twice(
    params_file, tmp_path, monkeypatch, capsys, caplog
):
    arguments = ["--experiment", "control", "1", "--seeds", "[0, 1]"]
    assert run(*arguments, "--run-dir", "whole") == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, "exp1 seed 1")
        assert run(*arguments, "--run-dir", "cut") == 130
    error = capsys.readouterr().err
    assert error == "interrupted: the same command goes on with exp1 seed 1 from the first epoch\n"
    caplog.set_level("INFO")
    assert run(*arguments, "--run-dir", "cut") == 0
    assert re.findall(r"(\S+(?: seed \d)?) epoch 1/1: ", caplog.text) == ["exp1 seed 1"]
    assert "teacher_targets view" not in caplog.text
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
    # Another method beside them takes the teacher and what it predicted as they are.
    caplog.clear()
    assert run("--experiment", "dkd", "--run-dir", "cut") == 0
    assert re.findall(r"(\S+) epoch 1/1: ", caplog.text) == ["dkd"]


def test_each_method_of_a_folder_is_compared_with_the_parameters_it_had(params_file):
    assert run("--experiment", "1", "2", "--alpha", "0.4", "--run-dir", "r") == 0
    assert run("--experiment", "2", "--alpha", "0.6", "--run-dir", "r") == 0
    notes = []
    runs = {one.method: one.params for one in read_folder("r/metrics", notes)}
    assert {name: params["alpha"] for name, params in runs.items()} == {"exp1": 0.4, "exp2": 0.6}
    assert notes == []
    # A kill between the two files: it is not known then.
    seeds = Path("r/metrics/seeds/exp2.json")
    seeds.write_bytes(seeds.read_bytes() + b"\n")
    known, unknown = read_folder("r/metrics", notes)
    assert (known.params["alpha"], unknown.params) == (0.4, None)
    assert notes == [
        "r/metrics: metrics/seeds/exp2.json is not the file that metrics/made_with/exp2.yaml "
        "speaks of."
    ]


@pytest.mark.parametrize("has_pipeline", [True, False])
def test_a_folder_with_parameters_of_the_users_is_no_run_folder(
    has_pipeline, params_file, tmp_path, capsys
):
    if has_pipeline:
        (tmp_path / "dvc.yaml").touch()
    before = params_file.read_bytes()
    assert run("--run-dir", ".") == 1
    assert capsys.readouterr().err.startswith("error: run-dir: got '.'; allowed: a folder that")
    assert params_file.read_bytes() == before


@pytest.mark.parametrize("place", ["data/prepared", "models", "report", "metrics"])
def test_a_folder_with_files_of_the_users_is_no_run_folder(params_file, tmp_path, capsys, place):
    own = tmp_path / "x" / place / "mine.txt"
    own.parent.mkdir(parents=True)
    own.write_text("1")
    assert run("--run-dir", "x") == 1
    assert capsys.readouterr().err.startswith("error: run-dir: got 'x'; allowed: a folder that")
    assert own.read_text() == "1"


def run_to_json(*arguments):
    assert run(*arguments, "--results-path", "results.json") == 0
    return json.loads(Path("results.json").read_text(encoding="utf-8"))["methods"]


def terms_of(method):
    """Give the loss terms of the first epoch of a method's first training."""
    return method["seeds"][0]["history"][0]["terms"]


def test_without_space_for_features_they_are_computed_live(params_file, caplog):
    caplog.set_level("INFO")
    stored = run_to_json("--experiment", "1", "2", "3")
    live = run_to_json("--experiment", "1", "2", "3", "--teacher-cache-gb", "0")
    assert "features will be computed live" in caplog.text
    assert [method["teacher_outputs"] for method in stored.values()] == ["stored"] * 3
    assert [method["teacher_outputs"] for method in live.values()] == ["stored", "live", "live"]
    for name, method in live.items():
        for term, value in terms_of(method).items():
            # They differ by the rounding of what is stored to float16.
            assert value == pytest.approx(terms_of(stored[name])[term], rel=5e-3)
    assert terms_of(live["exp1"]) == terms_of(stored["exp1"])


@pytest.fixture
def shown(monkeypatch):
    """Give a list that fills with the samples each epoch shows, in its order."""
    from distillation.training import loop

    orders = []
    real = loop.iterate_batches

    def record(train, order, *arguments, **options):
        orders.append(order)
        return real(train, order, *arguments, **options)

    monkeypatch.setattr(loop, "iterate_batches", record)
    return orders


def test_a_share_of_labels_trains_on_those_samples_alone(params_file, shown):
    assert run("--experiment", "all", "--labeled-fraction", "0.1") == 0
    folder = params_file.parent
    data = prepare(load_params(labeled_fraction=0.1), folder / "set", raw_directory=folder)
    assert len(data.labeled) < 0.12 * len(data.train)
    assert len(shown) == 5  # the teacher, the control and three experiments, an epoch each
    for order in shown:
        assert order.unique().tolist() == data.labeled.tolist()


def test_unlabelled_images_are_distilled_on_and_the_control_gets_as_many_steps(params_file, shown):
    methods = run_to_json(
        "--experiment", "all", "--labeled-fraction", "0.1", "--use-unlabeled", "true"
    )
    folder = params_file.parent
    data = prepare(load_params(labeled_fraction=0.1), folder / "set", raw_directory=folder)
    teacher, control, *distilled = shown
    for order in (teacher, control):
        assert order.unique().tolist() == data.labeled.tolist()
    assert len(teacher) < 0.2 * len(data.train)
    for order in distilled:
        assert order.unique().tolist() == list(range(len(data.train)))
    assert len(distilled) == 3
    # As many images in batches of the same size, so as many steps.
    assert {len(order) for order in distilled} == {len(control)}
    assert {methods[name]["teacher_outputs"] for name in ("exp1", "exp2", "exp3")} == {"stored"}


def test_every_method_learns_from_richer_views_and_the_stored_outputs_are_theirs(params_file):
    arguments = ["--experiment", "control", "1", "3", "dkd", "--labeled-fraction", "0.1"]
    plain = run_to_json(*arguments, "--use-unlabeled", "true")
    arguments += ["--augmentation", "resized_crop", "--resized-crop-area", "[0.5, 1]"]
    arguments += ["--interpolation", "bicubic", "--color-jitter", "0.3"]
    found = run_to_json(*arguments, "--use-unlabeled", "true", "--mixup", "0.4", "--cutmix", "1")
    for name in ("exp1", "exp3", "dkd"):
        assert found[name]["teacher_outputs"] == "stored"
    assert all(found[name] != plain[name] for name in found)


@pytest.mark.parametrize("mixing", [(), ("--mixup", "0.4", "--cutmix", "1")])
def test_labels_that_may_not_be_used_change_nothing(mixing, params_file, monkeypatch):
    """The same images twice, the second time with other labels on the unlabelled ones."""
    arguments = ("--experiment", "control", "1", "dkd", *mixing)
    arguments += ("--labeled-fraction", "0.1", "--use-unlabeled", "true")
    as_they_are = run_to_json(*arguments)

    def prepare_with_wrong_labels(params, directory, *, raw_directory):
        data = prepare(params, directory, raw_directory=raw_directory)
        wrong = (data.train.labels + 1) % data.num_classes
        wrong[data.labeled] = data.train.labels[data.labeled]
        assert (wrong != data.train.labels).mean() > 0.85
        train = dataclasses.replace(data.train, labels=wrong)
        save_prepared(dataclasses.replace(data, train=train), directory)
        return load_prepared(directory)

    monkeypatch.setattr("stages.prepare_data.prepare", prepare_with_wrong_labels)
    wrong = run_to_json(*arguments)
    assert list(wrong) == ["control", "exp1", "dkd"]
    for method, values in as_they_are.items():
        assert values["after_loss"] == wrong[method]["after_loss"]
        assert values["best_acc"] == wrong[method]["best_acc"]


def test_every_method_trains_once_a_seed(params_file, capsys, caplog):
    caplog.set_level("INFO")
    arguments = ["--experiment", "3", "control", "--seeds", "[3, 1]"]
    methods = run_to_json(*arguments)
    printed = capsys.readouterr().out
    assert re.findall(r"(\S+(?: seed \d)?) epoch 1/1: ", caplog.text) == [
        "teacher", "control seed 3", "control seed 1", "exp3 seed 3", "exp3 seed 1",
    ]  # fmt: skip
    assert "exp3 seed 1 on the test set: before loss " in caplog.text
    assert "One seed: " not in printed
    assert re.search(r"^exp3 .* control: .* \(95 % CI .*, n = 2\) points at", printed, re.MULTILINE)
    for method in methods.values():
        assert [training["seed"] for training in method["seeds"]] == [3, 1]
        first, second = (training["after_acc"] for training in method["seeds"])
        assert method["after_acc"] == pytest.approx((first + second) / 2, abs=1e-4)
        assert method["after_acc_std"] == pytest.approx(abs(first - second) / 2**0.5, abs=1e-4)
        # Two that are hardly trained may predict the same class of every image.
        assert method["seeds"][0]["after_loss"] != method["seeds"][1]["after_loss"]
    assert methods["control"]["seeds"][0]["before_acc"] == methods["exp3"]["seeds"][0]["before_acc"]
    # A seed's training does not depend on which others there are, nor on their order.
    alone = run_to_json("--experiment", "3", "control", "--seeds", "1")
    assert alone["exp3"]["seeds"][0]["history"] == methods["exp3"]["seeds"][1]["history"]
    for method in ("control", "exp3"):
        assert alone[method]["after_loss"] == round(methods[method]["seeds"][1]["after_loss"], 6)


def test_a_further_method_is_an_experiment_by_its_name(params_file, capsys):
    methods = run_to_json("--experiment", "dkd", "1")
    assert list(methods) == ["exp1", "dkd"]
    assert terms_of(methods["dkd"])["logit"] != terms_of(methods["exp1"])["logit"]
    heavy = run_to_json("--experiment", "dkd", "--method-weights", "{dkd: 80}")
    assert terms_of(heavy["dkd"])["logit"] > terms_of(methods["dkd"])["logit"]


def test_a_method_without_a_weight_is_told(params_file, no_work, capsys):
    assert run("--experiment", "dkd", "--method-weights", "{}") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: method_weights: missing dkd; allowed: ")


def test_a_run_in_bf16_comes_near_one_in_float32(params_file):
    plain = run_to_json("--experiment", "3", "--precision", "fp32")["exp3"]
    half = run_to_json("--experiment", "3", "--precision", "bf16")["exp3"]
    assert half["teacher_outputs"] == "stored"
    assert terms_of(half) != terms_of(plain)
    for term, value in terms_of(plain).items():
        assert terms_of(half)[term] == pytest.approx(value, rel=0.1)
    assert half["after_loss"] == pytest.approx(plain["after_loss"], rel=0.05)


def test_a_path_may_start_with_the_home_folder(params_file, tmp_path, monkeypatch):
    arguments = ["--experiment", "control", "--epochs", "0"]
    assert run(*arguments, "--teacher-epochs", "4", "--save-teacher", "t.safetensors") == 0
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(*arguments, "--teacher-checkpoint=~/t.safetensors") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment", "dkd"], "methods: got dkd, but the data set has 2 classes"),
        (["--standardize-logits", "true"], "standardize_logits: got true, but of 2 classes"),
        (
            ["--experiment", "3", "--teacher", "pit_ti_224", "--image-size", "224"],
            "teacher: got pit_ti_224, which has no map of features, only their mean, but exp3 ",
        ),
    ],
)
def test_what_a_method_cannot_be_run_with_is_told_before_any_training(
    arguments, message, params_file, tmp_path, capsys, caplog
):
    caplog.set_level("INFO")
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(5):
            pixels = np.full((8, 8, 3), 20 * number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    given = ["--dataset", "images", "--teacher-stem-stride", "null"]
    assert run("--experiment", "1", *given, *arguments) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert "epoch 1/" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--results-path", "results.txt"], "results path: got 'results.txt'; allowed endings"),
        (["--results-path", "gone/results.json"], "allowed: a file in a folder that exists"),
        (["--save-teacher", "t.pt"], "save-teacher: got 't.pt'; allowed ending: .safetensors"),
        (["--save-teacher", "gone/t.safetensors"], "save-teacher: got 'gone/t.safetensors'; all"),
        (["--save-teacher", "/proc/t.safetensors"], "in a folder that exists and can be written"),
        (["--results-path", "/proc/r.json"], "results path: got '/proc/r.json'; allowed: a file"),
        (["--alpha", "-1", "--epochs", "1.5"], "epochs: got 1.5; must be a whole number"),
        (["--alpha", "-1", "--epochs", "1.5"], "alpha: got -1; must be at least 0\n"),
        (["--dataset", "gone"], "dataset: got 'gone'; must be cifar10, digits or the path"),
        (["--teacher", "efficientnet_b00"], "did you mean efficientnet_b0"),
        (["--device", "tpu"], "device: got 'tpu'"),
        (["--params", "gone.yaml"], "gone.yaml: cannot be read"),
    ],
)
def test_mistakes_are_told_before_any_work(arguments, message, params_file, no_work, capsys):
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
