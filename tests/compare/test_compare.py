"""Results files and metrics folders compared: rows, intervals, sentences, formats, errors."""

import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from distillation import compare
from distillation.compare import projects
from distillation.compare.parameters import flatten
from distillation.compare.pipeline import Stage, why_stale

PARAMS = {
    "dataset": "cifar10",
    "seed": 0,
    "seeds": [0, 1, 2],
    "teacher": "big",
    "teacher_cache_gb": 4.0,
    "epochs": 4,
    "learning_rate": "2e-3",
    "use_unlabeled": False,
    "precision": "auto",
    "alpha": 0.9,
    "feature_weight": 1.0,
    "method_weights": {"dkd": 8.0, "dist": 1.0},
}
CONTROL = [60.0, 61.0, 62.0]
EXP1 = [61.0, 63.0, 65.0]  # over the control: 1, 2, 3
T_TWO_DEGREES = 4.302653
HALF = T_TWO_DEGREES / 3**0.5  # their deviation is 1
DATA = "CIFAR-10 (complete)"


def make_records(values, seeds=None):
    return [
        {
            "seed": seed,
            "before_acc": 10.0,
            "after_acc": value,
            "best_acc": value + 1,
            "after_f1": value / 100,
            "best_f1": value / 100 + 0.01,
            "validation_acc": value - 1,
        }
        for seed, value in zip(seeds or range(len(values)), values, strict=True)
    ]


def make_results(methods, data=DATA, baseline=None, **params):
    """Return what `--results-path` writes, as far as it is read."""
    return {
        "baseline": baseline or {},
        "summary": [],
        "data": data,
        "methods": {
            method: {"n": len(values), "seeds": make_records(values, params.get("seeds"))}
            for method, values in methods.items()
        },
        "params": {**PARAMS, **params},
    }


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a results file into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write_results(name, methods, **more):
        (tmp_path / name).write_text(json.dumps(make_results(methods, **more)), encoding="utf-8")
        return name

    return write_results


def write_metrics(folder, methods, *, params=PARAMS, data=DATA, lock=None):
    """Make a project's metrics folder with what lies beside it."""
    (folder / "metrics/seeds").mkdir(parents=True, exist_ok=True)
    for method, values in methods.items():
        text = json.dumps({"data": data, "seeds": make_records(values)})
        (folder / "metrics/seeds" / f"{method}.json").write_text(text, encoding="utf-8")
    for name, content in (("params.yaml", params), ("dvc.lock", lock)):
        if content is not None:
            (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")


@pytest.fixture
def rows(capsys):
    """Return a function that compares and returns the rows by label."""

    def run(*arguments):
        content = run_json(*arguments)
        return {row["label"]: row for table in content["tables"] for row in table["rows"]}

    def run_json(*arguments):
        assert compare.main([*arguments, "--format", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    run.json = run_json
    return run


@pytest.fixture
def error(capsys):
    """Return a function that expects a user's mistake and returns its line."""

    def run(*arguments):
        assert compare.main(arguments) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


# Numbers


def test_the_interval_of_three_pairs_by_hand(write, rows):
    compared = rows(write("a.json", {"exp1": EXP1, "control": CONTROL}))
    assert list(compared) == ["control", "exp1"]
    row = compared["exp1"]
    assert row["n"] == row["pairs"] == 3
    assert row["after_acc"] == 63.0
    assert row["after_acc_std"] == 2.0
    assert row["best_acc"] == 64.0
    assert row["validation_acc"] == 62.0
    assert row["difference"] == pytest.approx(2.0)
    assert row["difference_low"] == pytest.approx(2 - HALF, abs=1e-5)
    assert row["difference_high"] == pytest.approx(2 + HALF, abs=1e-5)
    # 2 − 4.302653 / √3 is −0.48: three such seeds do not separate.
    assert row["verdict"] == "not separated"
    assert row["reference"] == "control"
    assert compared["control"]["verdict"] == "reference"
    assert compared["control"]["difference"] is None


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([62.0, 63.1, 64.0], "ahead"),
        ([58.0, 59.1, 60.0], "behind"),
        ([60.0, 61.1, 61.9], "not separated"),
    ],
)
def test_verdicts(write, rows, values, verdict):
    assert rows(write("a.json", {"exp1": values, "control": CONTROL}))["exp1"]["verdict"] == verdict


def test_another_metric(write, rows):
    name = write("a.json", {"exp1": EXP1, "control": CONTROL})
    row = rows(name, "--metric", "best_f1")["exp1"]
    assert row["metric"] == "best_f1"
    assert row["difference"] == pytest.approx(0.02)
    assert row["difference_high"] == pytest.approx((2 + HALF) / 100, abs=1e-7)


def test_pairs_are_those_with_the_same_seeds(write, rows, capsys):
    write("a.json", {"control": CONTROL})
    write("b.json", {"exp1": [70.0, 63.0, 66.0]}, seeds=[7, 1, 2])
    row = rows("a.json", "b.json")["exp1"]
    assert (row["n"], row["pairs"]) == (3, 2)
    assert row["difference"] == pytest.approx(3.0)
    assert compare.main(["a.json", "b.json"]) == 0
    expected = "exp1: 2 of its 3 trainings have a partner with the same seeds in control; the dif"
    assert expected in capsys.readouterr().out


def test_without_pairs_there_is_no_difference(write, rows):
    write("a.json", {"control": CONTROL})
    write("b.json", {"exp1": EXP1}, seed=1)
    compared = rows.json("a.json", "b.json")["tables"][0]
    assert compared["rows"][1]["difference"] is None
    assert compared["rows"][1]["verdict"] is None
    assert compared["remarks"][0] == (
        "exp1 and control have no seeds in common, so there is no difference."
    )


# Which runs belong together


def test_runs_that_differ_in_seeds_alone_are_pooled(write, rows):
    write("a.json", {"control": [60.0, 61.0], "exp1": [61.0, 62.5]}, seeds=[0, 1])
    write("b.json", {"control": [64.0], "exp1": [67.0]}, seeds=[2])
    write("c.json", {"control": [50.0], "exp1": [54.0]}, seed=1, seeds=[0])
    compared = rows("a.json", "b.json", "c.json")
    assert list(compared) == ["control", "exp1"]
    assert compared["exp1"]["n"] == compared["exp1"]["pairs"] == 4
    assert compared["exp1"]["difference"] == pytest.approx((1 + 1.5 + 3 + 4) / 4)
    assert compared["exp1"]["sources"] == ["a.json", "b.json", "c.json"]


def test_students_of_two_teachers_are_two_rows(write, rows):
    """As after the same commands on another machine, which trains another teacher."""
    names = [
        write(
            f"{seeds[0]}.json",
            {"exp1": values, "control": values},
            seeds=seeds,
            baseline={"teacher": {"loss": loss}},
        )
        for seeds, values, loss in (
            ([0, 1], [61.0, 63.0], 0.417425841),
            ([2, 3], [65.0, 64.0], 0.417425842),
            ([4, 5], [65.0, 66.0], 0.417425841),
        )
    ]
    content = rows.json(*names)
    (table,) = content["tables"]
    assert {row["label"]: row["n"] for row in table["rows"]} == {
        "control": 6,
        "exp1 (0.json)": 4,
        "exp1 (2.json)": 2,
    }
    assert content["notes"][-1] == (
        "exp1: 0.json and 2.json have the same parameters but another teacher (test loss "
        "0.417425841 and 0.417425842): they are rows of their own."
    )


@pytest.mark.parametrize(("teacher", "numbers"), [("a", [4]), ("b", [2, 2])])
def test_the_lock_says_which_teacher_it_was(tmp_path, monkeypatch, rows, teacher, numbers):
    for name, seeds, md5 in (("one", (0, 1), "a"), ("two", (2, 3), teacher)):
        (tmp_path / name).mkdir()
        write_metrics(tmp_path / name, {"control": CONTROL, "exp1": EXP1})
        for method in ("control", "exp1"):
            content = {"data": DATA, "seeds": make_records([61.0, 62.0], seeds)}
            path = tmp_path / name / "metrics/seeds" / f"{method}.json"
            path.write_text(json.dumps(content), encoding="utf-8")
        lock = make_lock(tmp_path / name)
        deps = lock["stages"]["distill_exp1"]["deps"]
        deps.append({"path": "models/teacher.safetensors", "md5": md5})
        write_metrics(tmp_path / name, {}, lock=lock)
    monkeypatch.chdir(tmp_path)
    (table,) = rows.json("one/metrics", "two/metrics")["tables"]
    found = {method: [] for method in ("control", "exp1")}
    for row in table["rows"]:
        found[row["label"].split()[0]].append(row["n"])
    assert found == {"control": [4], "exp1": numbers}


def test_the_source_that_had_the_other_teacher_is_named(write, rows):
    names = [
        write(f"{name}.json", {"exp1": [60.0]}, seed=seed, seeds=seeds, baseline=teacher)
        for name, seed, seeds, teacher in (
            ("a", 0, [0], {"teacher": {"loss": 0.1}}),
            ("b", 1, [0], {"teacher": {"loss": 0.2}}),
            ("c", 1, [1], {"teacher": {"loss": 0.3}}),
            ("d", 1, [2], {"teacher": {}}),
            ("e", 1, [3], {}),
        )
    ]
    content = rows.json(*names)
    assert content["notes"][-1] == (
        "exp1: b.json and c.json have the same parameters but another teacher (test loss 0.2 and "
        "0.3): they are rows of their own."
    )
    assert sorted(row["n"] for row in content["tables"][0]["rows"]) == [1, 4]


@pytest.mark.parametrize("has_pipeline", [True, False])
@pytest.mark.parametrize(("loss", "numbers"), [(0.1, [4]), (0.2, [2, 2]), (None, [4])])
def test_run_folders_have_their_teacher_in_the_baseline(
    tmp_path, monkeypatch, rows, has_pipeline, loss, numbers
):
    if not has_pipeline:  # as where the package is alone
        monkeypatch.setattr(projects, "_OWN_PIPELINE", tmp_path / "none")
    for name, seeds, value in (("one", (0, 1), 0.1), ("two", (2, 3), loss)):
        (tmp_path / name).mkdir()
        write_metrics(tmp_path / name, {"control": CONTROL, "exp1": EXP1})
        for method in ("control", "exp1"):
            content = {"data": DATA, "seeds": make_records([61.0, 62.0], seeds)}
            path = tmp_path / name / "metrics/seeds" / f"{method}.json"
            path.write_text(json.dumps(content), encoding="utf-8")
            projects.write_made_with(tmp_path / name / "metrics", method, PARAMS)
        baseline = tmp_path / name / "metrics/baseline.json"
        baseline.write_text(json.dumps({"teacher": {"loss": value}}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (table,) = rows.json("one/metrics", "two/metrics")["tables"]
    found = {method: [] for method in ("control", "exp1")}
    for row in table["rows"]:
        found[row["label"].split()[0]].append(row["n"])
    assert found == {"control": [4], "exp1": numbers}


def test_spellings_of_one_value_are_one(tmp_path, write, rows):
    write("a.json", {"exp1": EXP1}, learning_rate=0.002, seeds=[0, 1, 2])
    write_metrics(tmp_path, {"exp1": EXP1})
    assert rows("a.json", "metrics")["exp1"]["n"] == 3


def test_the_control_is_shared_by_what_does_not_matter_to_it(write, rows):
    write("a.json", {"control": CONTROL, "exp1": EXP1})
    write("b.json", {"control": CONTROL, "exp1": [60.0, 61.2, 61.9]}, alpha=0.7)
    write("c.json", {"exp1": [59.0, 59.9, 61.0]}, alpha=0.5)
    compared = rows("a.json", "b.json", "c.json")
    assert list(compared) == ["control", "exp1 alpha=0.5", "exp1 alpha=0.7", "exp1 alpha=0.9"]
    assert compared["control"]["n"] == 3
    assert compared["control"]["sources"] == ["a.json"]
    assert {row["reference"] for row in compared.values()} == {"control"}
    assert compared["exp1 alpha=0.7"]["difference"] == pytest.approx(0.1 / 3)


def test_each_row_has_the_control_name_its_recipe(write, rows):
    write("a.json", {"control": CONTROL, "exp1": EXP1})
    write("b.json", {"control": [71.0, 72.0, 73.0], "exp1": [72.0, 73.0, 74.0]}, epochs=8)
    compared = rows("a.json", "b.json")
    assert list(compared) == [
        "control epochs=4",
        "control epochs=8",
        "exp1 epochs=4",
        "exp1 epochs=8",
    ]
    assert compared["exp1 epochs=8"]["reference"] == "control epochs=8"
    assert compared["exp1 epochs=8"]["difference"] == pytest.approx(1.0)
    against = rows("a.json", "b.json", "--reference", "exp1 epochs=4")
    assert against["control epochs=8"]["difference"] == pytest.approx(9.0)
    assert against["exp1 epochs=4"]["verdict"] == "reference"


@pytest.mark.parametrize(
    ("method", "change", "is_split"),
    [
        ("control", {"teacher": "other"}, False),
        ("control", {"teacher_cache_gb": 0.0}, False),
        ("control", {"alpha": 0.1}, False),
        ("control", {"use_unlabeled": True}, True),
        ("control", {"precision": "bf16"}, True),
        ("control", {"never_heard_of": 1}, True),
        ("exp1", {"feature_weight": 2.0}, False),
        ("exp1", {"teacher_cache_gb": 0.0}, True),
        ("exp2", {"feature_weight": 2.0}, True),
        ("exp2", {"method_weights": {"dkd": 1.0, "dist": 1.0}}, False),
        ("dkd", {"method_weights": {"dkd": 1.0, "dist": 1.0}}, True),
        ("dist", {"method_weights": {"dkd": 1.0, "dist": 1.0}}, False),
        ("dist", {"feature_weight": 2.0}, False),
    ],
)
def test_what_can_matter_splits_and_nothing_else_does(write, rows, method, change, is_split):
    write("a.json", {method: [60.0]}, seeds=[0])
    write("b.json", {method: [61.0]}, seeds=[1], **change)
    assert len(rows("a.json", "b.json")) == 1 + is_split


def test_other_data_is_another_table(write, rows):
    write("a.json", {"control": CONTROL, "exp1": EXP1})
    write("b.json", {"exp1": EXP1}, data="digits (scikit-learn)", dataset="digits")
    write("c.json", {"exp1": EXP1}, data="image folder x", dataset="/a/x")
    write("d.json", {"exp1": EXP1}, data="image folder x", dataset="/b/x")
    tables = rows.json("a.json", "b.json", "c.json", "d.json")["tables"]
    assert [table["data"] for table in tables] == [
        DATA,
        "digits (scikit-learn)",
        "image folder x (dataset: /a/x)",
        "image folder x (dataset: /b/x)",
    ]
    assert [row["reference"] for row in tables[1]["rows"]] == [None]
    assert tables[1]["remarks"] == [
        "No control of the same recipe was found for exp1: without it a number does not say what "
        "distillation adds."
    ]


def test_the_same_training_with_other_results_is_a_row_of_its_own(write, rows):
    """As after a change of a loss's file, or on another machine."""
    write("a.json", {"exp1": EXP1, "control": CONTROL})
    write("b.json", {"exp1": [61.0, 63.5, 65.0], "control": [60.5, 61.0, 62.0], "exp2": EXP1})
    content = rows.json("a.json", "b.json")
    assert [note for note in content["notes"] if "seeds" in note] == [
        "exp1: a.json and b.json have the same parameters and seeds (seed 0, training seed 1), "
        "but after_acc 63.0 and 63.5: they are rows of their own.",
        "control: a.json and b.json have the same parameters and seeds (seed 0, training seed 0), "
        "but after_acc 60.0 and 60.5: they are rows of their own.",
    ]
    (table,) = content["tables"]
    assert {row["label"]: row["reference"] for row in table["rows"]} == {
        "control (a.json)": "control (a.json)",
        "control (b.json)": "control (b.json)",
        "exp1 (a.json)": "control (a.json)",
        "exp1 (b.json)": "control (b.json)",
        "exp2": "control (b.json)",
    }
    # A third that is like one of them joins it.
    write("c.json", {"exp1": [61.0, 63.5, 65.0, 70.0]}, seeds=[0, 1, 2, 3])
    assert rows("a.json", "b.json", "c.json")["exp1 (b.json)"]["n"] == 4


def test_the_work_tree_is_what_is_compared_by_default(tmp_path, monkeypatch, rows):
    write_metrics(tmp_path, {"control": CONTROL, "exp1": EXP1, "teacher": [70.0], "mine": EXP1})
    (tmp_path / "metrics/exp2.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert list(rows()) == ["control", "exp1", "mine"]
    monkeypatch.chdir("metrics")
    assert list(rows(".")) == ["control", "exp1", "mine"]


def test_a_folder_without_parameters_says_so_and_is_paired_with_itself_alone(
    tmp_path, monkeypatch, rows
):
    for name in ("a", "b"):
        write_metrics(tmp_path / name, {"control": CONTROL, "exp1": EXP1}, params=None)
    monkeypatch.chdir(tmp_path)
    compared = rows("a/metrics", "b/metrics")
    label = "exp1 (parameters unknown: b/metrics)"
    assert compared[label]["reference"] == "control (parameters unknown: b/metrics)"
    assert compared[label]["difference"] == pytest.approx(2.0)
    assert len(compared) == 4
    other = rows("a/metrics", "b/metrics", "--reference", "exp1 (parameters unknown: a/metrics)")
    assert other[label]["difference"] is None


def make_lock(folder, *, seeds_md5=None, **params):
    def entry(method, values, prepared):
        path = f"metrics/seeds/{method}.json"
        md5 = hashlib.md5((folder / path).read_bytes()).hexdigest()
        return {
            "deps": [{"path": "data/prepared", "md5": prepared}, {"path": "x.py", "md5": "0"}],
            "params": {"params.yaml": values},
            "outs": [{"path": path, "md5": seeds_md5 or md5}],
        }

    prepare = {
        "params": {"params.yaml": {"dataset": params.get("dataset", "cifar10"), "seed": 0}},
        "outs": [{"path": "data/prepared", "md5": "a.dir"}],
    }
    values = {"alpha": params.get("alpha", 0.9), "learning_rate": 0.002, "seeds": [0]}
    stages = {
        "prepare_data": prepare,
        "train_control": entry("control", {"learning_rate": 0.002}, "a.dir"),
        "distill_exp1": entry("exp1", values, params.get("prepared", "a.dir")),
    }
    if params.get("moved"):  # a stage that dvc.yaml no longer has, which DVC does not tidy up
        stages["distill@exp1"] = entry("exp1", {"alpha": 0.1}, "b.dir")
    return {"schema": "2.0", "stages": stages}


@pytest.mark.parametrize(
    ("change", "labels", "note"),
    [
        ({}, ["control", "exp1"], None),
        ({"moved": True}, ["control", "exp1"], None),
        (
            {"alpha": 0.5},
            ["control"],
            "Left out: exp1 of metrics (distill_exp1 ran with alpha=0.5, params.yaml has "
            "alpha=0.9).",
        ),
        (
            {"prepared": "b.dir"},
            ["control"],
            "Left out: exp1 of metrics (distill_exp1 ran before data/prepared was made anew).",
        ),
        (
            {"seeds_md5": "0"},
            ["control", "exp1"],
            "metrics: metrics/seeds/exp1.json is not the file dvc.lock speaks of: whether it was "
            "made with params.yaml as it stands cannot be checked.",
        ),
    ],
)
def test_what_was_made_with_other_parameters_is_left_out(
    tmp_path, monkeypatch, rows, change, labels, note
):
    write_metrics(tmp_path, {"control": CONTROL, "exp1": EXP1})
    write_metrics(tmp_path, {}, lock=make_lock(tmp_path, **change))
    monkeypatch.chdir(tmp_path)
    content = rows.json()
    assert [row["label"] for row in content["tables"][0]["rows"]] == labels
    assert content["notes"][-1:] == ([] if note is None else [note])


def test_a_copy_of_the_metrics_is_none_that_the_lock_speaks_of(tmp_path, monkeypatch, rows):
    write_metrics(tmp_path, {"control": CONTROL, "exp1": EXP1})
    write_metrics(tmp_path, {}, lock=make_lock(tmp_path))
    shutil.copytree(tmp_path / "metrics", tmp_path / "before")
    monkeypatch.chdir(tmp_path)
    assert rows.json("metrics")["notes"] == []
    assert rows.json("before")["notes"][1:] == [
        "before: before/seeds/exp1.json is not the file dvc.lock speaks of: whether it was made "
        "with params.yaml as it stands cannot be checked."
    ]


NONE, ONE, TWO = {}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}


@pytest.mark.parametrize(
    ("made", "now", "difference"),
    [
        (
            None,
            ONE,
            "optimizer_options.momentum=null, params.yaml has optimizer_options.momentum=0.9",
        ),
        (
            ONE,
            TWO,
            "optimizer_options.nesterov=null, params.yaml has optimizer_options.nesterov=true",
        ),
        (
            ONE,
            None,
            "optimizer_options.momentum=0.9, params.yaml has optimizer_options.momentum=null",
        ),
        (ONE, ONE, None),
        (None, NONE, None),
    ],
)
def test_options_that_were_added_or_taken_away_make_a_file_stale(made, now, difference):
    stage = Stage(name="s", params={"optimizer_options": made}, deps={}, outs={"m.json": "0"})
    said = why_stale("m.json", flatten({"optimizer_options": now}), [stage])
    assert said == (difference and f"s ran with {difference}")


def test_labels_have_the_options_that_a_row_has(write, rows):
    names = [
        write(f"{i}.json", {"exp1": EXP1}, optimizer_options=options)
        for i, options in enumerate([None, ONE, TWO, NONE])
    ]
    assert sorted(rows(*names)) == [
        "exp1 optimizer_options.momentum=0.9",
        "exp1 optimizer_options.momentum=0.9 optimizer_options.nesterov=true",
        "exp1 optimizer_options=null",
    ]


def test_stale_data_leaves_nothing_to_compare(tmp_path, monkeypatch, error):
    write_metrics(tmp_path, {"control": CONTROL, "exp1": EXP1})
    write_metrics(tmp_path, {}, lock=make_lock(tmp_path, dataset="digits"))
    monkeypatch.chdir(tmp_path)
    assert error("metrics").startswith(
        "nothing to compare: no source has trainings. Left out: control of metrics (prepare_data "
        "ran with dataset=digits, params.yaml has dataset=cifar10)."
    )


# Remarks


def remarks(rows, *arguments):
    return rows.json(*arguments)["tables"][0]["remarks"]


def test_sentences_name_who_is_ahead_behind_and_neither(write, rows):
    methods = {
        "control": CONTROL,
        "exp1": [62.0, 63.1, 64.0],
        "exp2": [58.0, 59.1, 60.0],
        "exp3": EXP1,
    }
    few = remarks(rows, write("a.json", methods))
    assert [sentence.partition(":")[0] for sentence in few] == [
        "Ahead of the control in after_acc",
        "Behind the control in after_acc",
        "Not separated from the control in after_acc",
        "p is corrected for the 3 comparisons of the table (Holm), and who is ahead goes by it; an "
        "interval is that of its comparison alone.",
    ]
    assert few[0].endswith(": exp1 +2.03 (95 % CI +1.89 … +2.18, n = 3) points, p < 0.001.")
    many = remarks(rows, write("b.json", {**methods, "dkd": EXP1}))
    assert len(many) == 4
    assert many[2].count("n = 3") == 2


def test_who_is_ahead_goes_by_the_corrected_p_as_in_the_summary(write, rows):
    near = [62.1, 62.2, 63.7]  # 2.1, 1.2, 1.7 ahead: p = 0.024 by itself
    alone = rows(write("a.json", {"control": CONTROL, "exp1": near}))["exp1"]
    assert (round(alone["p"], 3), alone["verdict"]) == (0.024, "ahead")
    others = {"exp2": EXP1, "exp3": [61.0, 60.0, 62.5]}
    among = rows(write("b.json", {"control": CONTROL, "exp1": near, **others}))["exp1"]
    assert (round(among["p"], 3), among["verdict"]) == (0.071, "not separated")
    assert among["difference_low"] == alone["difference_low"] > 0
    said = remarks(rows, "a.json")
    assert not [sentence for sentence in said if "corrected" in sentence]


def test_one_seed_is_said_to_prove_nothing(write, rows):
    name = write("a.json", {"control": [60.0], "exp1": [61.0]}, seeds=[0])
    row = rows(name)["exp1"]
    assert (row["verdict"], row["difference"], row["difference_low"]) == ("one seed", 1.0, None)
    assert remarks(rows, name) == [
        "With one pair of trainings, against the control in after_acc: exp1 +1.00 (n = 1) points.",
        "One seed: a difference under 0.5 points proves nothing; run more, as seeds=[0,1,2].",
    ]
    assert remarks(rows, name, "--metric", "after_f1")[-1].startswith(
        "One seed: a difference under 0.005 proves nothing; "
    )


@pytest.mark.parametrize(("gain", "verdict"), [(2.0, "ahead"), (-2.0, "behind"), (0.4, None)])
def test_a_lead_that_is_the_same_for_each_seed_is_judged_as_in_the_summary(
    write, rows, gain, verdict
):
    name = write("a.json", {"control": CONTROL, "exp1": [value + gain for value in CONTROL]})
    for metric in ("after_acc", "after_f1"):
        row = rows(name, "--metric", metric)["exp1"]
        assert (row["p"], row["verdict"]) == (None, verdict or "not separated")


def test_a_reference_that_other_data_lacks(write, rows):
    write("a.json", {"control": CONTROL, "exp1": EXP1})
    write("b.json", {"control": CONTROL}, data="other")
    tables = rows.json("a.json", "b.json", "--reference", "exp1")["tables"]
    assert tables[1]["remarks"] == ["There is no exp1 on this data, so there are no differences."]


# Formats


@pytest.fixture
def two_rows(write):
    write("a.json", {"control": CONTROL, "exp1": [62.0, 63.1, 64.0]})
    write("b.json", {"exp1": [61.0]}, seeds=[0], alpha=0.7)
    return ["a.json", "b.json"]


def test_text(two_rows, capsys):
    assert compare.main(two_rows) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Data: {DATA}"
    assert re.split(r" {2,}", lines[2])[-3:] == [
        *("validation_acc", "difference in after_acc [95 % CI]", "verdict")
    ]
    assert re.split(r" {2,}", lines[4]) == [
        *("exp1 alpha=0.7", "1", "61.00", "0.6100", "62.00", "60.00", "+1.00", "one seed")
    ]
    assert re.split(r" {2,}", lines[5]) == [
        *("exp1 alpha=0.9", "3", "63.03 ± 1.00", "0.6303 ± 0.0100", "64.03 ± 1.00", "62.03"),
        *("+2.03 [+1.89, +2.18], p < 0.001", "ahead"),
    ]


def test_markdown(two_rows, capsys):
    assert compare.main([*two_rows, "--format", "markdown", "--metric", "best_f1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"**Data: {DATA}**", ""]
    header, rule, control, *_, last = (re.split(r" *\| *", line)[1:-1] for line in lines[2:7])
    assert header == [
        *("method", "n", "after_acc", "after_f1", "best_acc", "best_f1", "validation_acc"),
        *("difference in best_f1 [95 % CI]", "verdict"),
    ]
    assert [(cell[0], cell[-1]) for cell in rule] == [(":", "-"), *[("-", ":")] * 7, (":", "-")]
    assert control == [
        *("control", "3", "61.00 ± 1.00", "0.6100 ± 0.0100", "62.00 ± 1.00", "0.6200 ± 0.0100"),
        *("60.00", "–", "reference"),
    ]
    assert last[-2:] == ["+0.0203 [+0.0189, +0.0218], p < 0.001", "ahead"]
    assert lines[8].startswith("- Ahead of the control in best_f1: exp1 alpha=0.9 +0.0203 (95")


def test_csv_has_every_digit_and_sentences_go_elsewhere(two_rows, capsys):
    assert compare.main([*two_rows, "--format", "csv"]) == 0
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert list(rows[0]) == [
        *("label", "method", "n", "after_acc", "after_acc_std", "after_f1", "after_f1_std"),
        *("best_acc", "best_acc_std", "best_f1", "best_f1_std", "validation_acc", "metric"),
        *("reference", "difference", "difference_low", "difference_high", "p", "pairs"),
        *("verdict", "data", "sources"),
    ]
    assert float(rows[2]["after_acc"]) == (62.0 + 63.1 + 64.0) / 3
    assert (rows[1]["after_acc_std"], rows[1]["difference_low"]) == ("", "")
    assert rows[0]["difference"] == ""
    assert {row["data"] for row in rows} == {DATA}
    assert "Ahead of the control" in captured.err


def test_a_file_is_written_whole_and_nothing_else(two_rows, tmp_path, capsys):
    assert compare.main([*two_rows, "--format", "json", "--output", "out.json"]) == 0
    assert capsys.readouterr().out == "Comparison written to out.json.\n"
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert content["tables"][0]["rows"][2]["verdict"] == "ahead"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json", "out.json"]


# Mistakes


def test_a_place_that_cannot_be_written_is_refused_first(tmp_path, error):
    assert error("never-read.json", "--output", str(tmp_path / "no/x.csv")).endswith(
        "x.csv; must be a file in a folder that exists"
    )
    assert "must be a file in a folder" in error("never-read.json", "--output", str(tmp_path))


def test_an_unknown_reference_lists_the_labels(two_rows, error):
    assert error(*two_rows, "--reference", "exp1") == (
        "--reference: got 'exp1'; must be one of control, exp1 alpha=0.7, exp1 alpha=0.9"
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, r"^x\.json: cannot be read \(No such file"),
        ("[" * 100_000, r"^x\.json: not JSON \(it nests too deeply"),
        ("exp,after_acc\n", r"^x\.json: not JSON \(Expecting value.*must be a results file of"),
        ("\udcff", r"^x\.json: not JSON \(.*must be a results file of"),
        ('{"summary": []}', r"^x\.json: got JSON with the keys summary; must be a results file"),
        ("[1, 2]", r"^x\.json: got JSON with no mapping; must be .* what dvc exp show --json pri"),
        (
            '{"methods": {}, "data": "d"}',
            r"^x\.json: params: missing$",
        ),
        (
            '{"methods": {}, "data": "d", "params": 1}',
            r"^x\.json: params: got 1; must be a mapping$",
        ),
        (json.dumps(make_results({})), r"^nothing to compare: no source has train"),
        (
            json.dumps({**make_results({"exp1": EXP1}), "params": {"alpha": 1}}),
            r"^x\.json: parameters: seed: got null; must be a whole number",
        ),
        (
            json.dumps({**make_results({}), "methods": {"exp1": {"after_acc": 60.0}}}),
            r"^x\.json: methods\.exp1\.seeds: missing$",
        ),
        (
            json.dumps({**make_results({}), "methods": {"exp1": {"seeds": [{"seed": 0}]}}}),
            r"^x\.json: methods\.exp1\.seeds\.0\.after_acc: missing; .*; and 2 more$",
        ),
        (
            json.dumps(make_results({"exp1": []}, seeds=[])),
            r"^x\.json: methods\.exp1\.seeds: got \[\]; List should have at least 1 item",
        ),
    ],
)
def test_a_results_file_that_cannot_be_used(tmp_path, monkeypatch, error, text, match):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "x.json").write_bytes(text.encode(errors="surrogateescape"))
    assert re.search(match, error("x.json"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"after_acc": float("nan")}, r"exp1.seeds.1.after_acc: got nan; must be a finite number$"),
        ({"after_acc": "60"}, r"exp1.seeds.1.after_acc: got '60'; must be a valid number$"),
        ({"seed": "0"}, r"exp1.seeds.1.seed: got '0'; must be a valid integer$"),
        ({"after_acc": None}, r"exp1.seeds.1.after_acc: got null; must be a valid number$"),
    ],
)
def test_a_record_with_a_wrong_value(tmp_path, monkeypatch, error, change, match):
    monkeypatch.chdir(tmp_path)
    results = make_results({"exp1": EXP1})
    results["methods"]["exp1"]["seeds"][1] |= change
    (tmp_path / "x.json").write_text(json.dumps(results))
    assert re.search(match, error("x.json"))


def test_a_training_without_epochs_has_no_validation(write, rows, tmp_path):
    results = make_results({"exp1": EXP1})
    results["methods"]["exp1"]["seeds"][1]["validation_acc"] = None
    (tmp_path / "x.json").write_text(json.dumps(results))
    assert rows("x.json")["exp1"]["validation_acc"] is None


def test_folders_that_cannot_be_used(tmp_path, monkeypatch, error):
    monkeypatch.chdir(tmp_path)
    expected = "metrics: no metrics/seeds/<method>.json; must be where the pipeline has run"
    assert error().startswith(expected)
    write_metrics(tmp_path, {"teacher": [60.0]})
    assert error().startswith(expected)
    write_metrics(tmp_path, {"exp1": EXP1}, params=[1])
    assert error() == "metrics: params.yaml: got [1]; must be parameters, as key: value"
    (tmp_path / "params.yaml").write_text("a: [")
    assert error().startswith("metrics: params.yaml: not valid YAML")
    write_metrics(tmp_path, {}, lock=[1])
    write_metrics(tmp_path, {"exp1": EXP1})
    assert error().startswith("metrics: dvc.lock: TypeError; must be as DVC writes it")
    (tmp_path / "metrics/seeds/exp1.json").write_text("[]")
    (tmp_path / "dvc.lock").unlink()
    assert error() == "metrics: metrics/seeds/exp1.json: got []; must be a mapping"


ALIASES = {"a0": 9 * ["x"]} | {f"a{n}": 9 * [f"*a{n - 1}"] for n in range(1, 10)}
BOMB = "".join(f"  {name}: &{name} [{', '.join(items)}]\n" for name, items in ALIASES.items())
GROWING = "[{" + ", ".join(f'a{n}: "{9 * f"${{a{n + 1}}}"}"' for n in range(10)) + "}]"


@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock"])
@pytest.mark.parametrize(
    "text",
    [
        f"lists:\n{BOMB}stages: {{s: {{params: *a9}}}}\n",
        f'stages: {{s: {{vars: {GROWING}, params: ["${{a0}}"]}}}}\n',
        f"stages: {{s: {{cmd: {2**21 * 'x'}}}}}\n",
    ],
    ids=["aliases", "variables", "large"],
)
def test_a_pipeline_that_would_fill_memory_is_refused(tmp_path, monkeypatch, error, name, text):
    monkeypatch.chdir(tmp_path)
    write_metrics(tmp_path, {"control": CONTROL, "exp1": EXP1})
    (tmp_path / name).write_text(text)
    assert error() == f"metrics: {name}: ValueError; must be as DVC writes it"


def test_what_a_strangers_file_says_steers_no_terminal(write, capsys):
    write("a.json", {"control": CONTROL, "exp1\x1b[2J": EXP1}, data="d\x1b]52;c;x\x07")
    for form in ("text", "markdown", "csv"):
        assert compare.main(["a.json", "--format", form]) == 0
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        assert "exp1\\x1b[2J" in captured.out


# The command


def test_it_needs_no_torch_and_no_dvc(tmp_path, repository):
    write_metrics(tmp_path, {"control": CONTROL, "exp1": EXP1})
    code = (
        "import sys; from distillation import compare; status = compare.main([]); "
        "slow = {'torch', 'timm', 'dvc', 'pandas', 'sklearn'} & set(sys.modules); "
        "sys.exit(status or ', '.join(slow) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(repository), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "+2.00 [-0.48, +4.48]" in done.stdout


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        compare.main(["--help"])
    printed = capsys.readouterr().out
    for text in ("dvc exp show --json | python -m distillation compare -", "--reference LABEL"):
        assert text in printed
