"""What one `dvc repro` leaves behind, and that the command line gives the same: tiny models."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from distillation.cli.train import main as cli_main
from distillation.runs.predictions import load_predictions
from distillation.runs.seeds import combine_seeds
from tests.helpers.work_tree import stages_in

METHODS = ["control", "exp1", "exp2", "exp3", "dkd"]
COLUMNS = (
    "exp,before_acc,after_acc,gain_acc,before_f1,after_f1,gain_f1,best_acc,best_f1,"
    "acc_over_control,over_control_low,over_control_high,over_control_p,after_acc_std,"
    "after_f1_std,best_acc_std,best_f1_std,n"
)


def test_repro_runs_every_stage_once_and_leaves_the_work_tree_clean(work_tree, repro_output):
    listed = work_tree.dvc("stage", "list", "--name-only").split()
    assert sorted(stages_in(repro_output)) == sorted(listed)
    assert "distill@dkd" in listed
    assert "up to date" in work_tree.dvc("repro")
    assert work_tree.status() == ""


def test_a_further_method_leaves_what_the_experiments_leave(pipeline):
    exp1, dkd = pipeline.metrics("exp1"), pipeline.metrics("dkd")
    assert list(dkd) == list(exp1)
    assert dkd["teacher_outputs"] == "stored"
    assert dkd["before_acc"] == exp1["before_acc"]
    assert dkd["after_loss"] != exp1["after_loss"]
    assert (pipeline.root / "models/students/dkd.safetensors").exists()
    assert load_predictions(pipeline.root / "data/predictions/dkd.npz").logits.any()
    assert (pipeline.root / "metrics/live/dkd/seed0/metrics.json").exists()


def test_seeds_files_hold_every_epoch_and_what_they_ran_on(pipeline):
    for method in ["teacher", *METHODS]:
        content = pipeline.metrics(f"seeds/{method}")
        assert torch.__version__.startswith(content["environment"]["torch"])
        assert content["environment"]["device"] == "cpu"
        (record,) = content["seeds"]
        history = record["history"]
        assert [epoch["epoch"] for epoch in history] == list(range(1, record["epochs"] + 1))
        assert history[record["best_epoch"] - 1]["validation"]["acc"] == record["validation_acc"]
        path = pipeline.root / f"metrics/live/{method}/seed0/plots/metrics/train/loss.tsv"
        with path.open(encoding="utf-8") as file:
            logged = [float(row["loss"]) for row in csv.DictReader(file, delimiter="\t")]
        assert logged == [epoch["terms"]["loss"] for epoch in history]
        assert "seconds" not in history[0], "a repetition would be another file"


def test_repro_logs_one_line_an_epoch_and_no_progress_bar(repro_output):
    assert len(re.findall(r"^exp1 epoch \d/2: ", repro_output, re.MULTILINE)) == 2
    assert "step/s" not in repro_output


def test_every_stage_ends_with_what_it_made_in_how_long_and_where(pipeline, repro_output):
    lock = yaml.safe_load((pipeline.root / "dvc.lock").read_text(encoding="utf-8"))
    for stage in lock["stages"].values():
        name = stage["cmd"].removeprefix("python -m stages.")
        line = rf"^{name}: (\S.*) in [\d.]+ s$"
        (made,) = re.findall(line, repro_output, re.MULTILINE)
        paths = [Path(path) for path in made.split(", ")]
        for path in paths:
            assert (pipeline.root / path).exists()
        for out in stage["outs"]:
            assert {Path(out["path"]), *Path(out["path"]).parents} & set(paths), out["path"]


def test_summary_has_the_table_with_the_control_first(pipeline):
    rows = pipeline.metrics("summary")["summary"]
    assert [row["exp"] for row in rows] == METHODS
    assert list(rows[0]) == COLUMNS.split(",")
    for row in rows:
        method = pipeline.metrics(row["exp"])
        assert row["gain_acc"] == pytest.approx(row["after_acc"] - row["before_acc"], abs=2e-4)
        assert row["after_acc"] == method["after_acc"]
        assert row["n"] == method["n"] == 1
        assert row["acc_over_control"] == pytest.approx(
            row["after_acc"] - rows[0]["after_acc"], abs=2e-4
        )
    with (pipeline.root / "metrics" / "summary.csv").open(encoding="utf-8") as file:
        table = list(csv.reader(file))
    assert table[0] == [*COLUMNS.split(","), "data"]
    assert [line[0] for line in table[1:]] == METHODS
    assert "| control |" in (pipeline.root / "metrics" / "summary.md").read_text(encoding="utf-8")


def test_all_methods_have_the_same_flat_keys_and_the_same_start(pipeline):
    methods = [pipeline.metrics(name) for name in METHODS]
    baseline = pipeline.metrics("baseline")
    assert len({tuple(method) for method in methods}) == 1
    assert {method["before_acc"] for method in methods} == {round(baseline["student"]["acc"], 4)}
    assert {method["data"] for method in methods} == {"digits (scikit-learn)"}
    assert baseline["teacher"]["acc"] == pytest.approx(
        pipeline.metrics("teacher")["best_acc"], abs=1e-4
    )
    assert baseline["teacher"]["trained"] is True


def test_metrics_predictions_and_measures_tell_the_same(pipeline):
    measures = pipeline.metrics("measures")
    assert list(measures) == ["teacher", *METHODS, "data"]
    for method in ["teacher", *METHODS]:
        metrics, (record,) = pipeline.metrics(method), pipeline.metrics(f"seeds/{method}")["seeds"]
        assert metrics == {**combine_seeds([record]), "data": "digits (scikit-learn)"}
        predictions = load_predictions(pipeline.root / f"data/predictions/{method}.npz")
        assert predictions.seeds.tolist() == [0] == [record["seed"]]
        (logits,) = predictions.logits
        accuracy = 100 * (logits.argmax(axis=1) == predictions.labels).mean()
        assert accuracy == pytest.approx(record["best_acc"])
        assert measures[method]["accuracy"]["mean"] == pytest.approx(record["best_acc"], abs=1e-5)
        assert measures[method]["calibration_error"]["mean"] == pytest.approx(
            metrics["best_ece"], abs=1e-5
        )
        assert ("teacher_agreement" in measures[method]) is (method != "teacher")


def test_data_metrics_hold_source_and_counts(pipeline):
    data = pipeline.metrics("data")
    assert data["source"] == "digits (scikit-learn)"
    counts = {split: sum(classes.values()) for split, classes in data["counts"].items()}
    assert counts["train"] + counts["validation"] + counts["test"] == 1797
    assert counts["labeled"] == counts["train"]


def test_metrics_show_has_one_row_an_experiment(work_tree):
    table = work_tree.dvc("metrics", "show", "--md")
    rows = [line for line in table.splitlines() if "metrics/" in line]
    assert [row.split("/")[2].split(".")[0] for row in rows] == sorted([*METHODS, "teacher"])
    assert all(row.count("| - ") == 0 for row in rows[:-1]), "a cell is empty"
    assert max(map(len, work_tree.dvc("metrics", "show").splitlines())) <= 90


def test_live_files_hold_every_epoch(pipeline):
    path = pipeline.root / "metrics/live/exp2/seed0/plots/metrics/train/feature.tsv"
    with path.open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file, delimiter="\t"))) == 2


def test_plots_show_all_methods_on_one_chart_and_their_confusions(work_tree):
    shown = json.loads(work_tree.dvc("plots", "show", "--json"))
    assert not shown.get("errors")
    plots = {
        title: plot[0]["content"]["data"]["values"]
        for title, plot in shown["data"].items()
        if not title.startswith("metrics/live/dkd/")  # DVC draws each of a method's files by itself
    }
    methods = ["control", "exp1", "exp2", "exp3"]
    chart = shown["data"]["Validation accuracy"][0]["content"]
    assert chart["encoding"]["color"]["field"] == "method"
    assert chart["encoding"]["color"]["scale"]["domain"] == methods
    points = plots["Validation accuracy"]
    assert sorted({point["filename"].split("/")[0] for point in points}) == methods
    for method in methods:
        curve = [p for p in points if p["filename"].startswith(method)]
        history = work_tree.metrics(f"seeds/{method}")["seeds"][0]["history"]
        assert [(int(p["step"]), float(p["acc"])) for p in curve] == [
            (epoch["epoch"], epoch["validation"]["acc"]) for epoch in history
        ]
        confusion = plots[f"Confusion of {method}"]
        counts = work_tree.metrics("measures")[method]["confusion"]
        assert len(confusion) == sum(map(sum, counts))
        same = sum(row["actual"] == row["predicted"] for row in confusion)
        assert same == sum(row[i] for i, row in enumerate(counts))


def test_the_student_that_is_shipped_is_that_of_the_best_method_on_validation(pipeline):
    deploy, folder = pipeline.metrics("deploy"), pipeline.root / "models" / "student"
    accuracies = {method: pipeline.metrics(method)["validation_acc"] for method in METHODS}
    assert deploy["method"] == max(METHODS, key=lambda method: accuracies[method])
    assert deploy["seed"] == pipeline.metrics(deploy["method"])["saved_seed"]
    # The file says what the training stage measured.
    (record,) = pipeline.metrics(f"seeds/{deploy['method']}")["seeds"]
    assert deploy["models"]["student"]["acc"] == pytest.approx(record["best_acc"], abs=1e-4)
    assert deploy["agreement"]["same_predictions"] == deploy["agreement"]["num_images"] == 359
    weights = (folder / "model.safetensors").read_bytes()
    assert (
        weights == (pipeline.root / f"models/students/{deploy['method']}.safetensors").read_bytes()
    )
    assert "# `test_resnet`, trained on digits" in (folder / "README.md").read_text("utf-8")
    tracked = pipeline.run("git", "ls-files", "models")
    assert tracked.split() == [
        "models/.gitignore",
        "models/student/README.md",
        "models/student/config.json",
        "models/student/student-int8.onnx",
    ]


def test_stored_outputs_stand_in_the_metrics(pipeline, tiny_values):
    targets = pipeline.metrics("targets")
    assert targets["stored"] == ["logits", "feature maps"]
    assert targets["num_views"] == tiny_values["num_views"]
    assert targets["num_samples"] == sum(pipeline.metrics("data")["counts"]["labeled"].values())
    size = sum(path.stat().st_size for path in (pipeline.root / "data/targets").glob("[lf]*.npy"))
    assert size == pytest.approx(targets["num_bytes"], abs=300)
    assert [pipeline.metrics(method)["teacher_outputs"] for method in METHODS] == [
        "none",
        *["stored"] * 4,
    ]


def test_command_line_gives_the_same_numbers(pipeline, tmp_path, monkeypatch):
    results = tmp_path / "results.json"
    monkeypatch.chdir(tmp_path)
    arguments = ["--params", str(pipeline.root / "params.yaml"), "--results-path", str(results)]
    assert cli_main(["--experiment", "all", "--device", "cpu", *arguments]) == 0
    written = json.loads(results.read_text(encoding="utf-8"))
    assert written["summary"] == pipeline.metrics("summary")["summary"]
    baseline = pipeline.metrics("baseline")
    assert written["baseline"] == {key: baseline[key] for key in ("teacher", "student")}
    measures = pipeline.metrics("measures")
    assert written["measures"] == {name: measures[name] for name in ("teacher", *METHODS)}
