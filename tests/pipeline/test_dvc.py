"""The pipeline as a user runs it: real dvc commands in a real clone, tiny models."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from stages.workspace import run_stage

from distillation.cli.train import main as cli_main
from distillation.results.intervals import paired_difference
from distillation.runs.predictions import load_predictions
from distillation.runs.seeds import combine_seeds
from stages import prepare_data

DKD = "distill@dkd"
EXPERIMENTS = ["distill_exp1", "distill_exp2", "distill_exp3"]
ALL_STAGES = [
    "prepare_data",
    "train_teacher",
    "eval_baseline",
    "teacher_targets",
    "train_control",
    *EXPERIMENTS,
    "export_student",
    "summarize",
]
DEFAULT_METHODS = ["control", "exp1", "exp2", "exp3", "dkd"]
AFTER_TRAINING = ["export_student", "summarize"]
"""The stages that read what all methods left, in this order."""
DISTILLED = [*EXPERIMENTS, DKD]
"""The stages that have distilled a student."""
COLUMNS = (
    "exp,before_acc,after_acc,gain_acc,before_f1,after_f1,gain_f1,best_acc,best_f1,"
    "acc_over_control,over_control_low,over_control_high,after_acc_std,after_f1_std,best_acc_std,"
    "best_f1_std,n"
)


def ran(output: str) -> list[str]:
    """Give the stages a `dvc` command ran, from what it printed."""
    return re.findall(r"Running stage '([^']+)'", output)


def test_repro_runs_every_stage_once_and_leaves_the_work_tree_clean(pipeline):
    assert sorted(ran(pipeline.repro_output)) == sorted(ALL_STAGES)
    assert pipeline.status() == ""
    again = pipeline.dvc("repro")
    assert "up to date" in again
    # A further method runs when the parameters name it, and not before.
    assert "distill@" not in pipeline.repro_output
    assert pipeline.status() == ""


def test_a_further_method_is_one_stage_that_leaves_what_the_experiments_leave(pipeline):
    assert ran(pipeline.method_output) == [DKD, *AFTER_TRAINING]
    exp1, dkd = pipeline.metrics("exp1"), pipeline.metrics("dkd")
    assert list(dkd) == list(exp1)
    assert dkd["teacher_outputs"] == "stored"
    assert dkd["before_acc"] == exp1["before_acc"]
    assert dkd["after_loss"] != exp1["after_loss"]
    assert (pipeline.root / "models/students/dkd.safetensors").exists()
    assert load_predictions(pipeline.root / "data/predictions/dkd.npz").logits.any()
    assert (pipeline.root / "metrics/live/dkd/seed0/metrics.json").exists()


def test_seeds_files_hold_every_epoch_and_what_they_ran_on(pipeline):
    for method in ["teacher", *DEFAULT_METHODS]:
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


def test_repro_logs_one_line_an_epoch_and_no_progress_bar(pipeline):
    assert len(re.findall(r"^exp1 epoch \d/2: ", pipeline.repro_output, re.MULTILINE)) == 2
    assert "step/s" not in pipeline.repro_output


def test_every_stage_ends_with_what_it_made_in_how_long_and_where(pipeline):
    lock = yaml.safe_load((pipeline.root / "dvc.lock").read_text(encoding="utf-8"))
    assert len(ran(pipeline.repro_output)) == len(ALL_STAGES)
    for stage in map(lock["stages"].get, ran(pipeline.repro_output)):
        name = stage["cmd"].removeprefix("python -m stages.")
        line = rf"^{name}: (\S.*) in [\d.]+ s$"
        (made,) = re.findall(line, pipeline.repro_output, re.MULTILINE)
        paths = [Path(path) for path in made.split(", ")]
        for path in paths:
            assert (pipeline.root / path).exists()
        for out in stage["outs"]:
            assert {Path(out["path"]), *Path(out["path"]).parents} & set(paths), out["path"]


def test_summary_has_the_table_with_the_control_first(pipeline):
    rows = pipeline.metrics("summary")["summary"]
    assert [row["exp"] for row in rows] == DEFAULT_METHODS
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
    assert [line[0] for line in table[1:]] == DEFAULT_METHODS
    assert "| control |" in (pipeline.root / "metrics" / "summary.md").read_text(encoding="utf-8")


def test_all_methods_have_the_same_flat_keys_and_the_same_start(pipeline):
    methods = [pipeline.metrics(name) for name in DEFAULT_METHODS]
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
    assert list(measures) == ["teacher", *DEFAULT_METHODS, "data"]
    for method in ["teacher", *DEFAULT_METHODS]:
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


def test_metrics_show_has_one_row_an_experiment(pipeline):
    table = pipeline.dvc("metrics", "show", "--md")
    rows = [line for line in table.splitlines() if "metrics/" in line]
    assert len(rows) == 1 + len(DEFAULT_METHODS)
    assert all(len(re.findall(r"\|\s*(?=\|)", row)) == 0 for row in rows), "a cell is empty"


def test_live_files_hold_every_epoch(pipeline):
    path = pipeline.root / "metrics/live/exp2/seed0/plots/metrics/train/feature.tsv"
    with path.open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file, delimiter="\t"))) == 2


def test_plots_show_all_methods_on_one_chart_and_their_confusions(pipeline):
    shown = json.loads(pipeline.dvc("plots", "show", "--json"))
    assert not shown.get("errors")
    plots = {
        title: plot[0]["content"]["data"]["values"]
        for title, plot in shown["data"].items()
        if not title.startswith("metrics/live/dkd/")  # DVC draws each of a method's files by itself
    }
    methods = ["control", "exp1", "exp2", "exp3"]
    points = plots["Validation accuracy"]
    assert sorted({point["filename"].split("/")[0] for point in points}) == methods
    for method in methods:
        curve = [p for p in points if p["filename"].startswith(method)]
        history = pipeline.metrics(f"seeds/{method}")["seeds"][0]["history"]
        assert [(int(p["step"]), float(p["acc"])) for p in curve] == [
            (epoch["epoch"], epoch["validation"]["acc"]) for epoch in history
        ]
        confusion = plots[f"Confusion of {method}"]
        counts = pipeline.metrics("measures")[method]["confusion"]
        assert len(confusion) == sum(map(sum, counts))
        same = sum(row["actual"] == row["predicted"] for row in confusion)
        assert same == sum(row[i] for i, row in enumerate(counts))


def test_plots_of_two_revisions_are_on_one_chart(pipeline, two_seeds_output):
    shown = json.loads(pipeline.dvc("plots", "diff", "HEAD", "two", "--json"))
    (plot,) = shown["data"]["Validation loss"]
    assert sorted(plot["revisions"]) == ["HEAD", "two"]


@pytest.mark.parametrize("stage", [*ALL_STAGES, DKD])
def test_dependencies_cover_every_import(stage, pipeline):
    stages = yaml.safe_load((pipeline.root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    group, _, item = stage.partition("@")
    deps = stages[group]["do"]["deps"] if item else stages[stage]["deps"]
    trace = re.sub("[_@]", "-", stage) if stage.startswith("distill") else stage
    imported = set(json.loads((pipeline.traces / f"{trace}.json").read_text(encoding="utf-8")))
    declared = {
        dep.replace("${item}", item) for dep in deps if dep.startswith(("distillation", "stages"))
    }
    covered = {
        path
        for path in imported
        if any(path == dep or path.startswith(dep + "/") for dep in declared)
    }
    assert imported - covered == set(), f"{stage} imports what its deps do not list"
    unused = {
        dep
        for dep in declared
        if not any(path == dep or path.startswith(dep + "/") for path in imported)
    }
    assert unused == set(), f"{stage} lists what it does not import"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("distillation/losses/exp2.py", {"distill_exp2"}),
        ("distillation/losses/exp3.py", {"distill_exp3"}),
        ("distillation/losses/dkd.py", {DKD}),
        ("distillation/losses/similarity.py", set()),  # never run
        ("distillation/losses/logits.py", set(DISTILLED)),
        ("distillation/distilling/objective.py", set(DISTILLED)),
        ("distillation/distilling/teacher_outputs.py", {"teacher_targets", *DISTILLED}),
        (
            "distillation/runs/seeds.py",
            {"train_teacher", "train_control", *DISTILLED, *AFTER_TRAINING},
        ),
        ("distillation/results/intervals.py", set(AFTER_TRAINING)),
        ("distillation/results/measures.py", set(AFTER_TRAINING)),
        ("distillation/results/summary.py", set(AFTER_TRAINING)),
        ("distillation/report/template.html", {"summarize"}),
        ("distillation/export/card.py", {"export_student"}),
        ("distillation/cli/predict.py", set()),
        ("distillation/cli/train.py", set()),
        ("README.md", set()),
    ],
)
def test_an_edit_reruns_the_stages_that_use_the_file(path, expected, pipeline):
    file = pipeline.root / path
    original = file.read_bytes()
    file.write_bytes(original + b"\n# an edit\n")
    try:
        assert pipeline.changed_stages() == expected
    finally:
        file.write_bytes(original)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("feature_weight", 2.5, {"distill_exp2", "distill_exp3"}),
        ("method_weights.dkd", 2.5, {DKD}),
        ("methods", [], {"export_student"}),
        ("methods", ["dist", "dkd"], {"distill@dist", "export_student"}),
        ("export_method", "exp1", {"export_student"}),
        ("method_weights.similarity", 2.5, set()),
        ("temperature", 2.0, set(DISTILLED)),
        ("label_weight", 0.3, set(DISTILLED)),
        ("standardize_logits", True, set(DISTILLED)),
        ("learning_rate", 1e-4, {"train_control", *DISTILLED}),
        ("patience_epochs", 1, {"train_control", *DISTILLED}),
        ("ema_decay", 0.9, {"train_control", *DISTILLED}),
        ("seeds", [0, 1], {"eval_baseline", "train_control", *DISTILLED}),
        ("seed", 1, {"prepare_data", "train_teacher"}),
        ("num_views", 3, {"teacher_targets", "train_control", *DISTILLED}),
        ("use_unlabeled", True, {"teacher_targets", "train_control", *DISTILLED}),
        ("teacher_cache_gb", 0.5, {"teacher_targets"}),
        ("batch_size", 64, {"train_control", *DISTILLED}),
        (
            "student",
            "test_efficientnet",
            {"eval_baseline", "train_control", *DISTILLED, "export_student"},
        ),
        ("teacher_epochs", 3, {"train_teacher", "eval_baseline"}),
        ("teacher_checkpoint", "weights.pt", {"train_teacher", "eval_baseline"}),
        ("labeled_fraction", 0.5, {"prepare_data"}),
    ],
)
def test_a_parameter_reruns_the_stages_that_read_it(key, value, expected, pipeline):
    """And the summary, whose report shows all parameters."""
    file = pipeline.root / "params.yaml"
    original = file.read_bytes()
    values = yaml.safe_load(original)
    outer, _, inner = key.partition(".")
    values[outer] = {**values[outer], inner: value} if inner else value
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
        assert pipeline.changed_stages() == expected | {"summarize"}
    finally:
        file.write_bytes(original)


def test_the_student_that_is_shipped_is_that_of_the_best_method_on_validation(pipeline):
    deploy, folder = pipeline.metrics("deploy"), pipeline.root / "models" / "student"
    accuracies = {method: pipeline.metrics(method)["validation_acc"] for method in DEFAULT_METHODS}
    assert deploy["method"] == max(DEFAULT_METHODS, key=lambda method: accuracies[method])
    assert deploy["seed"] == pipeline.metrics(deploy["method"])["saved_seed"]
    # The file says what the training stage measured.
    (record,) = pipeline.metrics(f"seeds/{deploy['method']}")["seeds"]
    assert deploy["models"]["student"]["acc"] == pytest.approx(record["best_acc"], abs=1e-4)
    assert deploy["agreement"]["same_predictions"] == deploy["agreement"]["num_images"] == 359
    weights = (folder / "student.safetensors").read_bytes()
    assert (
        weights == (pipeline.root / f"models/students/{deploy['method']}.safetensors").read_bytes()
    )
    assert "# `test_resnet`, trained on digits" in (folder / "README.md").read_text("utf-8")
    status = pipeline.run("git", "ls-files", "models")
    assert status.split() == ["models/.gitignore"]


def test_another_method_is_shipped_by_name_and_predicts(pipeline, tmp_path):
    before = pipeline.metrics("deploy")["method"]
    other = next(method for method in DEFAULT_METHODS if method != before)
    output = pipeline.dvc("exp", "run", "-S", f"export_method={other}")
    try:
        assert ran(output) == AFTER_TRAINING
        assert pipeline.metrics("deploy")["method"] == other
        Image.new("L", (30, 20), 255).save(tmp_path / "white.png")
        command = ["-m", "distillation", "predict", str(tmp_path / "white.png"), "--json"]
        result = json.loads(pipeline.run(sys.executable, *command))
        assert result["class"] in [str(digit) for digit in range(10)]
        assert len(result["top"]) == 5
    finally:
        pipeline.restore()
    assert pipeline.changed_stages() == set()


def test_the_weight_of_a_method_reruns_its_stage_and_the_summary(pipeline):
    output = pipeline.dvc("exp", "run", "--temp", "-n", "weight", "-S", "method_weights.dkd=2.5")
    assert ran(output) == [DKD, *AFTER_TRAINING]
    assert pipeline.status() == ""


def test_an_edit_of_a_method_reruns_its_stage_alone(pipeline):
    file = pipeline.root / "distillation/losses/dkd.py"
    original = file.read_bytes()
    file.write_bytes(original + b"\n# an edit\n")
    try:
        assert ran(pipeline.dvc("repro", "--no-commit")) == [DKD]
    finally:
        file.write_bytes(original)
        pipeline.restore()
    assert pipeline.changed_stages() == set()


def test_an_experiment_with_more_methods_is_applied_and_left_again(pipeline):
    """DVC's checkout asks for the outputs of every stage: one that never ran must not be there."""
    pipeline.dvc("exp", "run", "--temp", "-n", "more", "-S", "methods=[dkd,exp3_scaled]")
    assert pipeline.status() == ""
    pipeline.dvc("exp", "apply", "more")
    rows = pipeline.metrics("summary")["summary"]
    assert [row["exp"] for row in rows] == [*DEFAULT_METHODS, "exp3_scaled"]
    assert (pipeline.root / "models/students/exp3_scaled.safetensors").exists()
    pipeline.restore()
    pipeline.run("git", "clean", "-q", "-f", "metrics")
    assert pipeline.changed_stages() == set()


def test_the_report_is_there_and_comes_with_an_experiment(pipeline):
    report = pipeline.root / "report" / "index.html"
    text = report.read_text(encoding="utf-8")
    assert all(f"{method}</span>" in text for method in DEFAULT_METHODS)
    assert "label_weight=0.1 " in text
    pipeline.dvc("exp", "run", "--temp", "-n", "seen", "-S", "label_weight=0.5")
    assert report.read_text(encoding="utf-8") == text
    pipeline.dvc("exp", "apply", "seen")
    assert "label_weight=0.5 " in report.read_text(encoding="utf-8")
    pipeline.restore()
    assert report.read_text(encoding="utf-8") == text
    assert pipeline.status() == ""


def test_alpha_reruns_what_distils_and_the_summary_and_shows_in_the_diff(pipeline):
    before = pipeline.metrics("exp1")
    output = pipeline.dvc("exp", "run", "-n", "alpha", "-S", "alpha=0.7")
    assert sorted(ran(output)) == sorted([*DISTILLED, *AFTER_TRAINING])
    assert {pipeline.metrics(method)["teacher_outputs"] for method in DEFAULT_METHODS[1:]} == {
        "stored"
    }
    after = pipeline.metrics("exp1")
    assert after["after_loss"] != before["after_loss"]
    diff = json.loads(pipeline.dvc("metrics", "diff", "--json"))
    change = diff["metrics/exp1.json"]["after_loss"]
    assert change["diff"] == pytest.approx(after["after_loss"] - before["after_loss"])
    assert "metrics/control.json" not in diff
    pipeline.restore()
    assert pipeline.changed_stages() == set()


def test_baseline_without_epochs_makes_the_diff_the_gain(pipeline):
    output = pipeline.dvc("exp", "run", "--temp", "-n", "baseline", "-S", "epochs=0")
    assert sorted(ran(output)) == sorted(["train_control", *DISTILLED, *AFTER_TRAINING])
    assert pipeline.status() == ""
    diff = json.loads(pipeline.dvc("metrics", "diff", "--json", "baseline"))
    for method in DEFAULT_METHODS:
        metrics = pipeline.metrics(method)
        for key, gain in (("after_acc", "gain_acc"), ("after_f1", "gain_f1")):
            change = diff[f"metrics/{method}.json"][key]
            assert change["diff"] == pytest.approx(metrics[gain], abs=2e-4)


def test_stored_outputs_stand_in_the_metrics(pipeline, tiny_values):
    targets = pipeline.metrics("targets")
    assert targets["stored"] == ["logits", "feature maps"]
    assert targets["num_views"] == tiny_values["num_views"]
    assert targets["num_samples"] == sum(pipeline.metrics("data")["counts"]["labeled"].values())
    size = sum(path.stat().st_size for path in (pipeline.root / "data/targets").glob("[lf]*.npy"))
    assert size == pytest.approx(targets["num_bytes"], abs=300)
    assert [pipeline.metrics(method)["teacher_outputs"] for method in DEFAULT_METHODS] == [
        "none",
        *["stored"] * 4,
    ]


def test_without_space_the_features_are_computed_live(pipeline):
    output = pipeline.dvc("exp", "run", "--temp", "-n", "small", "-S", "teacher_cache_gb=0")
    assert sorted(ran(output)) == sorted(["teacher_targets", *DISTILLED, *AFTER_TRAINING])
    assert "logits are stored, features will be computed live" in output
    shown = json.loads(pipeline.dvc("metrics", "diff", "--all", "--json", "HEAD", "small"))
    live = [shown[f"metrics/{method}.json"]["teacher_outputs"]["new"] for method in DEFAULT_METHODS]
    assert live == ["none", "stored", "live", "live", "stored"]
    for method in ("exp2", "exp3"):
        loss = shown[f"metrics/{method}.json"]["after_loss"]
        assert loss["new"] == pytest.approx(loss["old"], rel=0.02)


def test_command_line_gives_the_same_numbers(pipeline, tmp_path, monkeypatch):
    results = tmp_path / "results.json"
    monkeypatch.chdir(tmp_path)
    arguments = ["--params", str(pipeline.root / "params.yaml"), "--results-path", str(results)]
    assert cli_main(["--experiment", "all", *arguments]) == 0
    written = json.loads(results.read_text(encoding="utf-8"))
    assert written["summary"] == pipeline.metrics("summary")["summary"]
    baseline = pipeline.metrics("baseline")
    assert written["baseline"] == {key: baseline[key] for key in ("teacher", "student")}
    measures = pipeline.metrics("measures")
    assert written["measures"] == {name: measures[name] for name in ("teacher", *DEFAULT_METHODS)}


# Several seeds


def test_seeds_rerun_what_trains_students_and_nothing_else(pipeline, two_seeds_output):
    assert sorted(ran(two_seeds_output)) == sorted(
        ["eval_baseline", "train_control", *DISTILLED, *AFTER_TRAINING]
    )
    for method in DEFAULT_METHODS:
        for seed in (0, 1):
            lines = re.findall(
                rf"^{method} seed {seed} epoch (\d)/2: ", two_seeds_output, re.MULTILINE
            )
            assert lines == ["1", "2"]
    assert "(mean of seeds 0, 1)" in two_seeds_output
    assert pipeline.status() == ""


def test_metrics_of_two_seeds_hold_both(two_seeds, tmp_path):
    committed = two_seeds.run("git", "show", "HEAD:metrics/seeds/exp3.json")
    for method in DEFAULT_METHODS:
        metrics, trainings = (
            two_seeds.metrics(method),
            two_seeds.metrics(f"seeds/{method}")["seeds"],
        )
        assert [training["seed"] for training in trainings] == [0, 1]
        assert metrics["n"] == 2
        assert metrics == {**combine_seeds(trainings), "data": "digits (scikit-learn)"}
        assert metrics["after_acc_std"] > 0
        assert trainings[0]["after_loss"] != trainings[1]["after_loss"]
        predictions = load_predictions(two_seeds.root / f"data/predictions/{method}.npz")
        assert predictions.seeds.tolist() == [0, 1]
        assert predictions.logits.shape == (2, 359, 10)
        best = 100 * (predictions.logits.argmax(axis=2) == predictions.labels).mean(axis=1)
        assert best == pytest.approx([training["best_acc"] for training in trainings])
        weights = load_file(two_seeds.root / f"models/students/{method}.safetensors")
        assert all(value.isfinite().all() for value in weights.values())
        for seed in (0, 1):
            path = f"metrics/live/{method}/seed{seed}/plots/metrics/validation/acc.tsv"
            with (two_seeds.root / path).open(encoding="utf-8") as file:
                assert len(list(csv.DictReader(file, delimiter="\t"))) == 2
    # The first seed's training is the one it is alone.
    assert two_seeds.metrics("seeds/exp3")["seeds"][0] == json.loads(committed)["seeds"][0]


def test_the_summary_of_two_seeds_pairs_them(two_seeds):
    summary = two_seeds.metrics("summary")
    by_method = {
        method: {
            run["seed"]: run["after_acc"] for run in two_seeds.metrics(f"seeds/{method}")["seeds"]
        }
        for method in DEFAULT_METHODS
    }
    for row in summary["summary"]:
        over = paired_difference(by_method[row["exp"]], by_method["control"])
        assert row["n"] == 2
        assert row["acc_over_control"] == pytest.approx(over.mean, abs=1e-4)
        interval = [row["over_control_low"], row["over_control_high"]]
        if row["exp"] == "control":
            assert interval == [None, None]
        else:
            assert interval == pytest.approx([over.low, over.high], abs=1e-4)
    assert not [remark for remark in summary["remarks"] if remark.startswith("One seed")]
    assert len([remark for remark in summary["remarks"] if "n = 2" in remark]) >= 3
    table = (two_seeds.root / "metrics" / "summary.md").read_text(encoding="utf-8")
    assert re.search(r"\| exp1 \| .* ± .* \[.*, .*\] \| 2 \|", table)
    measures = two_seeds.metrics("measures")
    assert {measures[method]["accuracy"]["n"] for method in DEFAULT_METHODS} == {2}
    assert measures["teacher"]["accuracy"]["n"] == 1


def test_command_line_gives_the_same_numbers_with_two_seeds(two_seeds, tmp_path, monkeypatch):
    results = tmp_path / "results.json"
    monkeypatch.chdir(tmp_path)
    arguments = ["--params", str(two_seeds.root / "params.yaml"), "--results-path", str(results)]
    assert cli_main(["--experiment", "control", "3", *arguments]) == 0
    written = json.loads(results.read_text(encoding="utf-8"))
    expected = two_seeds.metrics("summary")["summary"]
    assert written["summary"] == [row for row in expected if row["exp"] in ("control", "exp3")]
    measures = two_seeds.metrics("measures")
    assert written["measures"] == {name: measures[name] for name in ("teacher", "control", "exp3")}


# Few labels


def test_unlabelled_images_are_distilled_on_with_as_many_steps_for_the_control(pipeline):
    def curve(method, name):
        path = pipeline.root / f"metrics/live/{method}/seed0/plots/metrics/{name}.tsv"
        with path.open(encoding="utf-8") as file:
            return [float(row[name]) for row in csv.DictReader(file, delimiter="\t")]

    rates_of_all_labels = curve("exp2", "learning_rate")
    few = ["-S", "labeled_fraction=0.2", "-S", "use_unlabeled=true"]
    stages = ["train_control", "distill_exp2"]
    output = pipeline.dvc("exp", "run", "-n", "few", *few, *stages)
    try:
        before = ["prepare_data", "train_teacher", "teacher_targets"]
        assert sorted(ran(output)) == sorted([*before, *stages])
        data, targets = pipeline.metrics("data"), pipeline.metrics("targets")
        num_train = sum(data["counts"]["train"].values())
        assert sum(data["counts"]["labeled"].values()) == pytest.approx(0.2 * num_train, abs=10)
        assert targets["num_samples"] == num_train
        assert pipeline.metrics("exp2")["teacher_outputs"] == "stored"
        # The rate at the end of an epoch shows how many steps it had.
        assert curve("control", "learning_rate") == curve("exp2", "learning_rate")
        assert curve("exp2", "learning_rate") == rates_of_all_labels
    finally:
        pipeline.restore()
    assert pipeline.changed_stages() == set()


def test_a_wrong_name_stops_the_pipeline_at_its_first_stage(fresh_workspace):
    overrides = ["-S", "seed=99", "-S", "teacher=efficientnet_b00"]
    output = fresh_workspace.dvc("exp", "run", "--temp", *overrides, check=False)
    assert "teacher: got 'efficientnet_b00'" in output
    assert "did you mean efficientnet_b0" in output
    assert "Traceback" not in output
    assert ran(output) == ["prepare_data"]
    assert fresh_workspace.status() == ""


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("alpha", -1, "alpha: got -1.0; allowed: a number at least 0"),
        ("dataset", "no/such/folder", "dataset: got 'no/such/folder'; allowed: cifar10, digits or"),
        ("teacher_checkpoint", "gone.pt", "teacher_checkpoint: got 'gone.pt'; allowed: the path"),
        ("student", "mobilenetv3_smal_100", "did you mean mobilenetv3_small_100"),
    ],
)
def test_wrong_values_end_a_stage_in_one_line(
    key, value, message, tiny_values, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({**tiny_values, key: value}), encoding="utf-8"
    )
    with pytest.raises(SystemExit) as stop:
        run_stage(prepare_data.main)
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_files_are_found_from_a_temporary_workspace(fresh_workspace):
    """An ignored archive lies only in the main work tree; `--temp` must find it there."""
    archive = fresh_workspace.root / "data" / "raw" / "mine.tar"
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(b"not a tar archive")
    values = ["-S", "dataset=data/raw/mine.tar"]
    output = fresh_workspace.dvc("exp", "run", "--temp", *values, check=False)
    assert "mine.tar: the archive is damaged or cut short" in output
    shutil.rmtree(archive.parent)


def test_failed_preparation_leaves_no_output(fresh_workspace, tmp_path):
    for path in ("data/a/1.png", "data/b/1.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"no image")
    work = tmp_path / "work"
    (work).mkdir()
    params = yaml.safe_load((fresh_workspace.root / "params.yaml").read_text(encoding="utf-8"))
    (work / "params.yaml").write_text(
        yaml.safe_dump({**params, "dataset": str(tmp_path / "data")}), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stages.prepare_data"],
        cwd=work,
        env={**fresh_workspace.environment, "PYTHONPATH": str(fresh_workspace.root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "a/1.png is not an image" in done.stderr
    assert sorted(p.name for p in work.rglob("*")) == ["params.yaml"]
