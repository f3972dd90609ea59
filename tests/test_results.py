"""The summary table, its formats and what is said of it."""

import csv
import io
import json
import math

import pytest

from distillation.results import (
    ARMS,
    OVER_CONTROL_COLUMN,
    SUMMARY_COLUMNS,
    ResultsError,
    check_results_path,
    remarks,
    summary_table,
    to_csv,
    to_markdown,
    to_records,
    to_text,
    write_results,
)

COLUMNS = [
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
TEACHER = {"acc": 90.0, "f1": 0.9, "trained": True}


def make_arm(after_acc, after_f1=0.8, **more):
    return {
        "before_acc": 10.0,
        "after_acc": after_acc,
        "gain_acc": after_acc - 10.0,
        "before_f1": 0.05,
        "after_f1": after_f1,
        "gain_f1": after_f1 - 0.05,
        "best_acc": after_acc + 1.0,
        "best_f1": after_f1 + 0.01,
        "seconds": 12.0,
        **more,
    }


ALL = {  # in an order that is not the table's
    "exp3": make_arm(81.5),
    "exp1": make_arm(83.25),
    "control": make_arm(82.0),
    "exp2": make_arm(82.123456),
}
NO_CONTROL = {name: ALL[name] for name in ("exp2", "exp1")}


def test_columns_and_rows_have_their_order():
    table = summary_table(ALL)
    assert [*SUMMARY_COLUMNS, OVER_CONTROL_COLUMN] == COLUMNS
    assert list(table.columns) == COLUMNS
    assert list(table["exp"]) == ["control", "exp1", "exp2", "exp3"] == list(ARMS)
    # Arms of the user's own come behind, in the order they were given.
    more = summary_table({"mine": make_arm(1.0), "again": make_arm(2.0), **ALL})
    assert list(more["exp"]) == [*ARMS, "mine", "again"]


def test_rows_hold_the_arms_metrics():
    for row in to_records(summary_table(ALL)):
        arm = ALL[row["exp"]]
        assert {key: row[key] for key in COLUMNS[1:-1]} == {key: arm[key] for key in COLUMNS[1:-1]}


def test_acc_over_control():
    table = summary_table(ALL)
    assert list(table[OVER_CONTROL_COLUMN]) == [0.0, 1.25, 0.1235, -0.5]


def test_a_metric_that_is_missing_is_named():
    arm = make_arm(80.0)
    del arm["best_f1"]
    with pytest.raises(KeyError, match="best_f1"):
        summary_table({"exp1": arm})


def test_without_control_the_last_column_is_empty_everywhere():
    table = summary_table(NO_CONTROL)
    assert list(table["exp"]) == ["exp1", "exp2"]
    assert all(math.isnan(value) for value in table[OVER_CONTROL_COLUMN])
    assert [row[OVER_CONTROL_COLUMN] for row in to_records(table)] == [None, None]
    rows = list(csv.DictReader(io.StringIO(to_csv(table, source="noise"))))
    assert [row[OVER_CONTROL_COLUMN] for row in rows] == ["", ""]
    assert all(line.endswith("| – |") for line in to_markdown(table).splitlines()[2:])


def test_markdown():
    found = to_markdown(summary_table({"exp3": ALL["exp3"], "control": ALL["control"]}))
    assert found == (
        "| exp | before_acc | after_acc | gain_acc | before_f1 | after_f1 | gain_f1 | best_acc "
        "| best_f1 | acc_over_control |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| control | 10.00 | 82.00 | +72.00 | 0.0500 | 0.8000 | +0.7500 | 83.00 | 0.8100 "
        "| +0.00 |\n"
        "| exp3 | 10.00 | 81.50 | +71.50 | 0.0500 | 0.8000 | +0.7500 | 82.50 | 0.8100 "
        "| -0.50 |\n"
    )


def test_text_for_a_terminal():
    lines = to_text(summary_table(ALL)).splitlines()
    assert lines[0].split() == COLUMNS
    assert lines[1].split()[:4] == ["control", "10.00", "82.00", "+72.00"]
    assert lines[4].split()[-1] == "-0.50"
    assert len(lines) == 5


# Files


@pytest.mark.parametrize("name", ["results.txt", "results", ".json", "results.json.gz", "a.JSON"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(ResultsError, match=r"results path: got .*allowed endings: \.json, \.csv"):
        check_results_path(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_refused_and_not_made(tmp_path):
    path = tmp_path / "missing" / "results.json"
    match = r"missing.results\.json'; allowed: a file in a folder that exists"
    with pytest.raises(ResultsError, match=match):
        check_results_path(path)
    with pytest.raises(ResultsError, match=match):
        write_results(path, summary_table(ALL), {})
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


def test_json_read_back(tmp_path):
    path = tmp_path / "results.json"
    details = {"teacher": TEACHER, "remarks": ["one – two"]}
    write_results(path, summary_table(ALL), details)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert list(content) == ["summary", "teacher", "remarks"]
    assert {key: content[key] for key in details} == details
    assert [row["exp"] for row in content["summary"]] == list(ARMS)
    assert list(content["summary"][0]) == COLUMNS
    assert content["summary"][2]["after_acc"] == 82.123456
    assert content["summary"][3]["acc_over_control"] == -0.5
    assert list(tmp_path.iterdir()) == [path]


def test_json_without_control_has_null(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, summary_table(NO_CONTROL), {})
    assert "NaN" not in path.read_text(encoding="utf-8")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [row["acc_over_control"] for row in content["summary"]] == [None, None]


def test_csv_read_back(tmp_path):
    path = tmp_path / "results.csv"
    write_results(path, summary_table(ALL), {"teacher": TEACHER, "data": "CIFAR-10 (JPEG copy)"})
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*COLUMNS, "data"]
    assert {row["data"] for row in rows} == {"CIFAR-10 (JPEG copy)"}
    assert [row["exp"] for row in rows] == list(ARMS)
    for row in rows:
        for key in COLUMNS[1:-1]:
            assert float(row[key]) == ALL[row["exp"]][key]
    assert [float(row["acc_over_control"]) for row in rows] == [0.0, 1.25, 0.1235, -0.5]
    assert list(tmp_path.iterdir()) == [path]


def test_writing_again_replaces_the_file(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("old " * 10_000)
    write_results(path, summary_table(NO_CONTROL), {"data": "noise"})
    assert path.read_text(encoding="utf-8") == to_csv(summary_table(NO_CONTROL), source="noise")


# Remarks


def said(arms=ALL, teacher=TEACHER, source="CIFAR-10 (complete)"):
    return remarks(arms, teacher, source=source)


def find(sentences, start):
    return [sentence for sentence in sentences if sentence.startswith(start)]


def test_one_seed_is_always_said_last():
    for sentences in (said(), said(NO_CONTROL), said({})):
        assert sentences[-1].startswith("One seed: a difference under 0.5 points proves nothing")


def test_nothing_more_than_needed_is_said_of_a_good_run():
    assert [sentence.split(":")[0][:14] for sentence in said()] == ["The best exper", "One seed"]


def test_an_untrained_teacher():
    sentences = said(teacher={**TEACHER, "trained": False, "acc": 10.0})
    assert sentences[0].startswith("The teacher was never trained")
    # Its lead is no news then.
    assert not [sentence for sentence in sentences if "lead the control" in sentence]
    assert not find(said(), "The teacher was never trained")


@pytest.mark.parametrize(
    ("acc", "lead"),
    [
        (83.5, "barely leads the control (+1.50 points)"),
        (82.0, "does not even lead the control (+0.00 points)"),
        (80.0, "does not even lead the control (-2.00 points)"),
        (84.0, None),
        (90.0, None),
    ],
)
def test_a_teacher_that_barely_leads(acc, lead):
    found = find(said(teacher={**TEACHER, "acc": acc}), "The teacher ")
    assert len(found) == (lead is not None)
    if found:
        assert found[0] == f"The teacher {lead}: it has little to teach."


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        (ALL, "exp1, beats the control (+1.25 points)."),
        (
            {k: ALL[k] for k in ("control", "exp3")},
            "exp3, does not beat the control (-0.50 points).",
        ),
        (
            {"control": make_arm(82.0), "exp2": make_arm(82.0)},
            "exp2, does not beat the control (+0.00 points).",
        ),
        (
            {"control": make_arm(82.0), "exp2": make_arm(82.4)},
            "exp2, is ahead of the control by less than one seed can show (+0.40 points).",
        ),
    ],
)
def test_the_best_experiment_is_held_against_the_control(arms, sentence):
    (found,) = find(said(arms), "The best experiment")
    assert found == f"The best experiment by final accuracy, {sentence}"


def test_a_control_alone_has_no_best_experiment():
    assert not find(said({"control": ALL["control"]}), "The best experiment")


def test_without_control():
    sentences = said(NO_CONTROL)
    assert find(sentences, "No control was run")
    assert not find(sentences, "The best experiment")
    assert not find(sentences, "The teacher ")
    assert not find(said(), "No control was run")


def test_digits():
    assert find(said(source="digits (scikit-learn)"), "Digits are few and easy")
    assert not find(said(source="image folder digits"), "Digits are few and easy")
