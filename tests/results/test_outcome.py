"""Results files: what they hold, and where they may be written."""

import csv
import json

import numpy as np
import pytest

from distillation.base.methods import DEFAULT_METHODS
from distillation.base.params import make_params
from distillation.base.workspace import Workspace
from distillation.results.metrics_files import MetricsFileError
from distillation.results.outcome import (
    Outcome,
    ResultsError,
    check_results_path,
    read_baseline,
    write_results,
)
from distillation.results.table import summary_table, to_csv, to_records
from distillation.runs.predictions import Predictions
from tests.results.records import ALL, BALANCE, COLUMNS, EVEN, NO_CONTROL, TEACHER

NAMED = {**TEACHER, "model": "big"}


@pytest.fixture(scope="module")
def params(tiny_values):
    return make_params(tiny_values)


def outcome_of(methods=ALL, source="CIFAR-10", balance=BALANCE, teacher=TEACHER):
    """Return trainings as if read from files, with predictions of two classes."""
    predictions = Predictions(
        logits=np.array([[[1.0, 0.0], [0.0, 1.0]]], dtype=np.float32),
        seeds=np.array([0]),
        labels=np.array([0, 1]),
        class_names=("a", "b"),
    )
    return Outcome(
        methods=methods,
        baseline={
            "teacher": teacher,
            "student": {"acc": 10.0},
            "balance": balance,
            "data": source,
        },
        predictions=dict.fromkeys(("teacher", *methods), predictions),
    )


@pytest.mark.parametrize("name", ["results.txt", "results", ".json", "results.json.gz", "a.JSON"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(ResultsError, match=r"results path: got .*allowed endings: \.json, \.csv"):
        check_results_path(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_refused_and_not_made(tmp_path, params):
    path = tmp_path / "missing" / "results.json"
    match = r"missing.results\.json'; allowed: a file in a folder that exists"
    with pytest.raises(ResultsError, match=match):
        check_results_path(path)
    with pytest.raises(ResultsError, match=match):
        write_results(path, outcome_of(), params)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["results.json", "results.csv"])
def test_a_folder_is_refused_as_a_file(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ResultsError, match="allowed: a file in a folder that exists"):
        check_results_path(tmp_path / name)


@pytest.mark.parametrize("name", ["results.json", "results.csv"])
def test_good_paths_pass_relative_ones_too(tmp_path, monkeypatch, name):
    check_results_path(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    check_results_path((tmp_path / name).relative_to(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_json_read_back(tmp_path, params):
    path = tmp_path / "results.json"
    write_results(path, outcome_of(), params)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [row["exp"] for row in content["summary"]] == list(DEFAULT_METHODS)
    assert list(content["summary"][0]) == COLUMNS
    assert content["summary"][2]["after_acc"] == 82.1235
    assert content["summary"][3]["acc_over_control"] == -0.5
    assert content["methods"]["exp1"]["seeds"] == ALL["exp1"]
    assert content["methods"]["exp1"]["after_acc"] == 83.25
    assert content["baseline"]["teacher"] == TEACHER
    assert content["measures"].keys() == {"teacher", *ALL}
    assert content["params"]["alpha"] == params.alpha
    assert list(tmp_path.iterdir()) == [path]


def test_json_without_control_has_null(tmp_path, params):
    path = tmp_path / "results.json"
    write_results(path, outcome_of(NO_CONTROL), params)
    assert "NaN" not in path.read_text(encoding="utf-8")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [row["acc_over_control"] for row in content["summary"]] == [None, None]


def test_csv_read_back(tmp_path, params):
    path = tmp_path / "results.csv"
    write_results(path, outcome_of(source="CIFAR-10 (JPEG copy)"), params)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*COLUMNS, "data"]
    assert {row["data"] for row in rows} == {"CIFAR-10 (JPEG copy)"}
    assert [row["exp"] for row in rows] == list(DEFAULT_METHODS)
    for row, record in zip(rows, to_records(summary_table(ALL)), strict=True):
        for key in COLUMNS[1:]:
            assert row[key] == ("" if record[key] is None else str(record[key]))
    assert [float(row["after_acc"]) for row in rows] == [82.0, 83.25, 82.1235, 81.5]
    assert [float(row["acc_over_control"]) for row in rows] == [0.0, 1.25, 0.1235, -0.5]
    assert list(tmp_path.iterdir()) == [path]


def test_writing_again_replaces_the_file(tmp_path, params):
    path = tmp_path / "results.csv"
    path.write_text("old " * 10_000)
    write_results(path, outcome_of(NO_CONTROL, source="noise"), params)
    assert path.read_text(encoding="utf-8") == to_csv(summary_table(NO_CONTROL), source="noise")


def test_a_majority_stands_beside_the_accuracy_in_text_and_markdown():
    mostly = {**EVEN, "majority_class": "cat", "majority_share": 90.0, "is_notable": True}
    outcome = outcome_of(balance={"test": mostly, "validation": EVEN}, teacher=NAMED)
    line = "90.00 % accuracy (always predicting cat: 90.00 %), macro-F1 0.9000."
    for text in (outcome.to_text(), outcome.to_markdown()):
        assert line in text
        assert "90.00 % of the test images are cat: always predicting it has that accuracy." in text
    assert outcome.summary()["remarks"][0].startswith("90.00 % of the test images are cat")
    assert "always predicting" not in outcome_of(teacher=NAMED).to_markdown()


def test_the_columns_that_are_filled_are_explained_last():
    with_control, without = (outcome_of(methods, teacher=NAMED) for methods in (ALL, NO_CONTROL))
    said = (
        "gain_* compares with the untrained student, acc_over_control with the student trained by "
        "labels alone, both at the last epoch."
    )
    assert with_control.remarks[-1] == said
    assert with_control.to_markdown().endswith(f"- {said}\n")
    assert without.remarks[-1] == "gain_* compares with the untrained student, at the last epoch."
    assert "acc_over_control" not in " ".join(without.remarks)


def test_a_baseline_of_a_former_version_is_refused(tmp_path):
    (tmp_path / "metrics").mkdir()
    former = {"teacher": NAMED, "student": {"model": "small", "acc": 10.0}, "data": "CIFAR-10"}
    path = tmp_path / "metrics" / "baseline.json"
    path.write_text(json.dumps(former), encoding="utf-8")
    with pytest.raises(MetricsFileError, match=r"json: balance is missing; delete it and run its"):
        read_baseline(Workspace(root=tmp_path))


def test_markdown_shows_names_from_users_as_they_are():
    balance = {split: {**found, "absent_classes": ["<none>"]} for split, found in BALANCE.items()}
    text = outcome_of(source="image folder <i>x", teacher=NAMED, balance=balance).to_markdown()
    assert "Data: image folder \\<i>x." in text
    assert "has no image of \\<none>" in text
