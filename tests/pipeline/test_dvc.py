"""The pipeline as a user runs it: real dvc commands in a real clone, tiny models."""

import csv
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from distillation.cli import main as cli_main
from stages import prepare_data
from stages.workspace import run_stage

EXPERIMENTS = ["distill_exp1", "distill_exp2", "distill_exp3"]
ALL_STAGES = [
    "prepare_data",
    "train_teacher",
    "eval_baseline",
    "teacher_targets",
    "train_control",
    *EXPERIMENTS,
    "summarize",
]
ARMS = ["control", "exp1", "exp2", "exp3"]
COLUMNS = (
    "exp,before_acc,after_acc,gain_acc,before_f1,after_f1,gain_f1,best_acc,best_f1,acc_over_control"
)


def ran(output: str) -> list[str]:
    """Give the stages a `dvc` command ran, from what it printed."""
    return re.findall(r"Running stage '([^']+)'", output)


def test_repro_runs_every_stage_once_and_leaves_the_work_tree_clean(pipeline):
    assert sorted(ran(pipeline.repro_output)) == sorted(ALL_STAGES)
    assert pipeline.status() == ""
    assert "up to date" in pipeline.dvc("repro")
    assert pipeline.status() == ""


def test_repro_logs_one_line_an_epoch_and_no_progress_bar(pipeline):
    assert len(re.findall(r"^exp1 epoch \d/2: ", pipeline.repro_output, re.MULTILINE)) == 2
    assert "step/s" not in pipeline.repro_output


def test_summary_has_the_table_with_the_control_first(pipeline):
    rows = pipeline.metrics("summary")["summary"]
    assert [row["exp"] for row in rows] == ARMS
    assert list(rows[0]) == COLUMNS.split(",")
    for row in rows:
        arm = pipeline.metrics(row["exp"])
        assert row["gain_acc"] == pytest.approx(row["after_acc"] - row["before_acc"], abs=2e-4)
        assert row["after_acc"] == arm["after_acc"]
        assert row["acc_over_control"] == pytest.approx(
            row["after_acc"] - rows[0]["after_acc"], abs=2e-4
        )
    with (pipeline.root / "metrics" / "summary.csv").open(encoding="utf-8") as file:
        table = list(csv.reader(file))
    assert table[0] == [*COLUMNS.split(","), "data"]
    assert [line[0] for line in table[1:]] == ARMS
    assert "| control |" in (pipeline.root / "metrics" / "summary.md").read_text(encoding="utf-8")


def test_all_arms_have_the_same_flat_keys_and_the_same_start(pipeline):
    arms = [pipeline.metrics(name) for name in ARMS]
    baseline = pipeline.metrics("baseline")
    assert len({tuple(arm) for arm in arms}) == 1
    assert {arm["before_acc"] for arm in arms} == {round(baseline["student"]["acc"], 4)}
    assert {arm["data"] for arm in arms} == {"digits (scikit-learn)"}
    assert baseline["teacher"]["acc"] == pytest.approx(
        pipeline.metrics("teacher")["best_acc"], abs=1e-4
    )
    assert baseline["teacher"]["trained"] is True


def test_data_metrics_hold_source_and_counts(pipeline):
    data = pipeline.metrics("data")
    assert data["source"] == "digits (scikit-learn)"
    counts = {split: sum(classes.values()) for split, classes in data["counts"].items()}
    assert counts["train"] + counts["validation"] + counts["test"] == 1797
    assert counts["labeled"] == counts["train"]


def test_metrics_show_has_one_row_an_experiment(pipeline):
    table = pipeline.dvc("metrics", "show", "--md")
    rows = [line for line in table.splitlines() if "metrics/" in line]
    assert len(rows) == 5
    assert all(len(re.findall(r"\|\s*(?=\|)", row)) == 0 for row in rows), "a cell is empty"


def test_live_files_hold_every_epoch(pipeline):
    path = pipeline.root / "metrics/live/exp2/plots/metrics/train/feature.tsv"
    with path.open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file, delimiter="\t"))) == 2


def test_dependencies_cover_every_import(pipeline):
    stages = yaml.safe_load((pipeline.root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name in ALL_STAGES:
        trace = name.replace("distill_", "distill-")
        imported = set(json.loads((pipeline.traces / f"{trace}.json").read_text(encoding="utf-8")))
        declared = {
            dep for dep in stages[name]["deps"] if dep.startswith(("distillation", "stages"))
        }
        covered = {
            path
            for path in imported
            if any(path == dep or path.startswith(dep + "/") for dep in declared)
        }
        assert imported - covered == set(), f"{name} imports what its deps do not list"
        unused = {
            dep
            for dep in declared
            if not any(path == dep or path.startswith(dep + "/") for path in imported)
        }
        assert unused == set(), f"{name} lists what it does not import"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("distillation/losses/cosine.py", {"distill_exp2"}),
        ("distillation/losses/regressor.py", {"distill_exp3"}),
        ("distillation/losses/logits.py", set(EXPERIMENTS)),
        ("distillation/distill.py", set(EXPERIMENTS)),
        ("distillation/targets.py", {"teacher_targets", *EXPERIMENTS}),
        ("distillation/results.py", {"summarize"}),
        ("distillation/cli.py", set()),
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
        ("temperature", 2.0, set(EXPERIMENTS)),
        ("label_weight", 0.3, set(EXPERIMENTS)),
        ("learning_rate", 1e-4, {"train_control", *EXPERIMENTS}),
        ("num_views", 3, {"teacher_targets", "train_control", *EXPERIMENTS}),
        ("teacher_cache_gb", 0.5, {"teacher_targets"}),
        ("batch_size", 64, {"train_control", *EXPERIMENTS}),
        ("student", "test_efficientnet", {"eval_baseline", "train_control", *EXPERIMENTS}),
        ("teacher_epochs", 3, {"train_teacher", "eval_baseline"}),
        ("labeled_fraction", 0.5, {"prepare_data"}),
    ],
)
def test_a_parameter_reruns_the_stages_that_read_it(key, value, expected, pipeline):
    file = pipeline.root / "params.yaml"
    original = file.read_bytes()
    file.write_text(yaml.safe_dump({**yaml.safe_load(original), key: value}), encoding="utf-8")
    try:
        assert pipeline.changed_stages() == expected
    finally:
        file.write_bytes(original)


def test_alpha_reruns_three_experiments_and_the_summary_and_shows_in_the_diff(pipeline):
    before = pipeline.metrics("exp1")
    output = pipeline.dvc("exp", "run", "-n", "alpha", "-S", "alpha=0.7")
    assert sorted(ran(output)) == sorted([*EXPERIMENTS, "summarize"])
    assert {pipeline.metrics(arm)["teacher_outputs"] for arm in ARMS[1:]} == {"stored"}
    after = pipeline.metrics("exp1")
    assert after["after_loss"] != before["after_loss"]
    diff = json.loads(pipeline.dvc("metrics", "diff", "--json"))
    change = diff["metrics/exp1.json"]["after_loss"]
    assert change["diff"] == pytest.approx(after["after_loss"] - before["after_loss"])
    assert "metrics/control.json" not in diff
    pipeline.run("git", "checkout", "-q", "--", ".")
    pipeline.dvc("checkout", "-q", "--force")
    assert pipeline.changed_stages() == set()


def test_baseline_without_epochs_makes_the_diff_the_gain(pipeline):
    output = pipeline.dvc("exp", "run", "--temp", "-n", "baseline", "-S", "epochs=0")
    assert sorted(ran(output)) == sorted(["train_control", *EXPERIMENTS, "summarize"])
    assert pipeline.status() == ""
    diff = json.loads(pipeline.dvc("metrics", "diff", "--json", "baseline"))
    for arm in ARMS:
        metrics = pipeline.metrics(arm)
        for key, gain in (("after_acc", "gain_acc"), ("after_f1", "gain_f1")):
            change = diff[f"metrics/{arm}.json"][key]
            assert change["diff"] == pytest.approx(metrics[gain], abs=2e-4)


def test_stored_outputs_stand_in_the_metrics(pipeline, tiny_values):
    targets = pipeline.metrics("targets")
    assert targets["stored"] == ["logits", "feature maps"]
    assert targets["num_views"] == tiny_values["num_views"]
    assert targets["num_samples"] == sum(pipeline.metrics("data")["counts"]["labeled"].values())
    size = sum(path.stat().st_size for path in (pipeline.root / "data/targets").glob("[lf]*.npy"))
    assert size == pytest.approx(targets["num_bytes"], abs=300)
    assert [pipeline.metrics(arm)["teacher_outputs"] for arm in ARMS] == ["none", *["stored"] * 3]


def test_without_space_the_features_are_computed_live(pipeline):
    output = pipeline.dvc("exp", "run", "--temp", "-n", "small", "-S", "teacher_cache_gb=0")
    assert sorted(ran(output)) == sorted(["teacher_targets", *EXPERIMENTS, "summarize"])
    assert "logits are stored, features will be computed live" in output
    shown = json.loads(pipeline.dvc("metrics", "diff", "--all", "--json", "HEAD", "small"))
    live = [shown[f"metrics/{arm}.json"]["teacher_outputs"]["new"] for arm in ARMS]
    assert live == ["none", "stored", "live", "live"]
    for arm in ARMS[2:]:
        loss = shown[f"metrics/{arm}.json"]["after_loss"]
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
    key, value, message, tiny_values, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({**tiny_values, key: value}), encoding="utf-8"
    )
    with pytest.raises(SystemExit) as stop:
        run_stage(prepare_data.main)
    assert str(stop.value).startswith("error: ")
    assert message in str(stop.value)
    assert "\n" not in str(stop.value)
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
