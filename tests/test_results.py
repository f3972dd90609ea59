"""The summary table, its formats and what is said of it."""

import csv
import io
import json
import math
import re

import pytest

from distillation.methods import ARMS, find_methods
from distillation.results import (
    OVER_CONTROL_COLUMN,
    SPREAD_COLUMNS,
    SUMMARY_COLUMNS,
    ResultsError,
    best_arm,
    check_results_path,
    difference,
    remarks,
    summary_table,
    to_csv,
    to_markdown,
    to_records,
    to_text,
    write_results,
)

SHOWN = [
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
SPREADS = [
    "over_control_low",
    "over_control_high",
    "after_acc_std",
    "after_f1_std",
    "best_acc_std",
    "best_f1_std",
]
COLUMNS = [*SHOWN, *SPREADS, "n"]
TEACHER = {"acc": 90.0, "f1": 0.9, "trained": True, "checkpoint": None}
T_975_DF_2 = 4.302653


def make_record(after_acc, after_f1=0.8, *, seed=0, **more):
    return {
        "seed": seed,
        "before_acc": 10.0,
        "after_acc": after_acc,
        "before_f1": 0.05,
        "after_f1": after_f1,
        "before_loss": 2.3,
        "after_loss": 0.6,
        "best_acc": after_acc + 1.0,
        "best_f1": after_f1 + 0.01,
        "best_ece": 0.05,
        "best_epoch": 2,
        "epochs": 3,
        "validation_acc": 85.0,
        "teacher_outputs": "stored",
        **more,
    }


def make_arm(*after_accs, **more):
    """Give the trainings of an arm with the seeds 0, 1, …"""
    return [make_record(acc, seed=seed, **more) for seed, acc in enumerate(after_accs)]


ALL = {  # in an order that is not the table's
    "exp3": make_arm(81.5),
    "exp1": make_arm(83.25),
    "control": make_arm(82.0),
    "exp2": make_arm(82.123456),
}
NO_CONTROL = {name: ALL[name] for name in ("exp2", "exp1")}
SEEDS = {
    "control": make_arm(80.0, 81.0, 82.0),
    "exp1": make_arm(82.0, 83.0, 84.0),  # 2, 2, 2 ahead: no spread
    "exp2": make_arm(81.0, 83.0, 85.0),  # 1, 2, 3 ahead: not told apart
    "exp3": make_arm(79.0, 79.9, 81.1),  # 1, 1.1, 0.9 behind
}


# The table


def test_columns_and_rows_have_their_order():
    table = summary_table(ALL)
    assert [*SUMMARY_COLUMNS, OVER_CONTROL_COLUMN, *SPREAD_COLUMNS] == COLUMNS
    assert list(table.columns) == COLUMNS
    assert list(table["exp"]) == ["control", "exp1", "exp2", "exp3"] == list(ARMS)
    # Then further methods, and arms of the user's own in the order they were given.
    more = summary_table(
        {"mine": make_arm(1.0), "dkd": make_arm(3.0), "dist": make_arm(2.0), **ALL}
    )
    assert list(more["exp"]) == [*ARMS, "dist", "dkd", "mine"]
    assert {"dist", "dkd"} < set(find_methods())


def test_rows_hold_the_arms_metrics():
    for row in to_records(summary_table(ALL)):
        (record,) = ALL[row["exp"]]
        assert {key: row[key] for key in record if key in SHOWN} == {
            key: pytest.approx(record[key], abs=5e-5) for key in record if key in SHOWN
        }
        assert row["gain_acc"] == pytest.approx(record["after_acc"] - 10.0, abs=5e-5)
        assert row["gain_f1"] == pytest.approx(record["after_f1"] - 0.05)
        assert row["n"] == 1
        assert [row[key] for key in SPREADS] == [None] * 6


def test_rows_hold_means_and_deviations_over_the_seeds():
    rows = {row["exp"]: row for row in to_records(summary_table(SEEDS))}
    assert [row["n"] for row in rows.values()] == [3] * 4
    assert [row["after_acc"] for row in rows.values()] == [81.0, 83.0, 83.0, 80.0]
    assert [row["after_acc_std"] for row in rows.values()] == [1.0, 1.0, 2.0, 1.0536]
    assert [row["best_acc_std"] for row in rows.values()] == [1.0, 1.0, 2.0, 1.0536]
    assert [row["after_f1_std"] for row in rows.values()] == [0.0] * 4
    spread = {"exp1": [make_record(80.0, f1, seed=seed) for seed, f1 in ((0, 0.5), (1, 0.6))]}
    (row,) = to_records(summary_table(spread))
    assert (row["after_f1"], row["after_f1_std"], row["best_f1_std"]) == (0.55, 0.070711, 0.070711)


def test_acc_over_control():
    table = summary_table(ALL)
    assert list(table[OVER_CONTROL_COLUMN]) == [0.0, 1.25, 0.1235, -0.5]


def test_the_interval_of_acc_over_control_is_that_of_paired_differences():
    rows = {row["exp"]: row for row in to_records(summary_table(SEEDS))}
    half = T_975_DF_2 / 3**0.5

    def interval(name):
        row = rows[name]
        return [row["acc_over_control"], row["over_control_low"], row["over_control_high"]]

    assert interval("control") == [0.0, None, None]
    assert interval("exp1") == [2.0, 2.0, 2.0]
    assert interval("exp2") == pytest.approx([2.0, 2.0 - half, 2.0 + half], abs=1e-4)
    assert interval("exp3") == pytest.approx([-1.0, -1.0 - half / 10, -1.0 + half / 10], abs=1e-4)


def test_only_seeds_the_control_has_too_are_held_against_it():
    arms = {
        "control": [make_record(80.0, seed=0), make_record(81.0, seed=1)],
        "exp1": [make_record(83.0, seed=1), make_record(99.0, seed=2)],
        "exp2": [make_record(99.0, seed=2)],
    }
    rows = {row["exp"]: row for row in to_records(summary_table(arms))}
    assert (rows["exp1"]["acc_over_control"], rows["exp1"]["over_control_low"]) == (2.0, None)
    assert rows["exp2"]["acc_over_control"] is None
    assert rows["exp2"]["after_acc"] == 99.0


def test_any_key_of_two_arms_can_be_compared():
    arms = {"exp1": make_arm(80.0, 81.0), "exp2": [make_record(80.0, 0.7), make_record(81.0, 0.6)]}
    arms["exp2"][1]["seed"] = 1
    assert difference(arms, "exp1", "exp2").mean == 0.0
    found = difference(arms, "exp1", "exp2", "after_f1")
    assert (found.mean, found.n) == (pytest.approx(0.15), 2)
    assert difference(arms, "exp1", "control") is None
    assert difference(arms, "control", "exp1") is None


def test_a_metric_that_is_missing_is_named():
    arm = make_arm(80.0)
    del arm[0]["best_f1"]
    with pytest.raises(KeyError, match="best_f1"):
        summary_table({"exp1": arm})


@pytest.mark.parametrize("arms", [NO_CONTROL, {name: SEEDS[name] for name in ("exp2", "exp1")}])
def test_without_control_what_compares_with_it_is_empty(arms):
    table = summary_table(arms)
    assert list(table["exp"]) == ["exp1", "exp2"]
    for column in (OVER_CONTROL_COLUMN, "over_control_low", "over_control_high"):
        assert all(math.isnan(value) for value in table[column])
        assert [row[column] for row in to_records(table)] == [None, None]
        rows = list(csv.DictReader(io.StringIO(to_csv(table, source="noise"))))
        assert [row[column] for row in rows] == ["", ""]
    n = len(arms["exp1"])
    assert all(line.endswith(f"| – | {n} |") for line in to_markdown(table).splitlines()[2:])


def test_markdown():
    found = to_markdown(summary_table({"exp3": ALL["exp3"], "control": ALL["control"]}))
    assert found == (
        "| exp | before_acc | after_acc | gain_acc | before_f1 | after_f1 | gain_f1 | best_acc "
        "| best_f1 | acc_over_control | n |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| control | 10.00 | 82.00 | +72.00 | 0.0500 | 0.8000 | +0.7500 | 83.00 | 0.8100 "
        "| +0.00 | 1 |\n"
        "| exp3 | 10.00 | 81.50 | +71.50 | 0.0500 | 0.8000 | +0.7500 | 82.50 | 0.8100 "
        "| -0.50 | 1 |\n"
    )


def test_markdown_of_several_seeds_shows_deviation_and_interval():
    found = to_markdown(summary_table({name: SEEDS[name] for name in ("control", "exp2")}))
    assert found.splitlines()[2:] == [
        "| control | 10.00 | 81.00 ± 1.00 | +71.00 | 0.0500 | 0.8000 ± 0.0000 | +0.7500 "
        "| 82.00 ± 1.00 | 0.8100 ± 0.0000 | +0.00 | 3 |",
        "| exp2 | 10.00 | 83.00 ± 2.00 | +73.00 | 0.0500 | 0.8000 ± 0.0000 | +0.7500 "
        "| 84.00 ± 2.00 | 0.8100 ± 0.0000 | +2.00 [-0.48, +4.48] | 3 |",
    ]


def test_text_for_a_terminal():
    lines = to_text(summary_table(ALL)).splitlines()
    assert lines[0].split() == [*SHOWN, "n"]
    assert lines[1].split()[:4] == ["control", "10.00", "82.00", "+72.00"]
    assert lines[4].split()[-2:] == ["-0.50", "1"]
    assert len(lines) == 5
    lines = to_text(summary_table(SEEDS)).splitlines()
    assert lines[0].split() == [*SHOWN, "n"]
    assert lines[3].split()[-4:] == ["+2.00", "[-0.48,", "+4.48]", "3"]
    assert lines[3].split()[2:5] == ["83.00", "±", "2.00"]


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
    assert content["summary"][2]["after_acc"] == 82.1235
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
    for row, record in zip(rows, to_records(summary_table(ALL)), strict=True):
        for key in COLUMNS[1:]:
            assert row[key] == ("" if record[key] is None else str(record[key]))
    assert [float(row["after_acc"]) for row in rows] == [82.0, 83.25, 82.1235, 81.5]
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


MEANING = (
    "gain_* compares with the untrained student, acc_over_control with the student trained by "
    "labels alone."
)


def test_what_the_columns_mean_is_always_said_last():
    for sentences in (said(), said(NO_CONTROL), said(SEEDS), said({})):
        assert sentences[-1] == MEANING
        assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("arms", [ALL, NO_CONTROL, {**SEEDS, "exp2": make_arm(81.0)}])
def test_one_seed_is_said(arms):
    assert said(arms)[-2] == (
        "One seed: a difference under 0.5 points proves nothing; run more with -S 'seeds=[0,1,2]'."
    )


def test_several_seeds_are_not_called_one():
    assert not find(said(SEEDS), "One seed")
    assert not find(said({"control": make_arm(1.0, 2.0)}), "One seed")


def test_nothing_more_than_needed_is_said_of_a_good_run():
    assert said({"control": make_arm(82.0), "exp1": make_arm(83.25)}) == [
        "exp1 is ahead of the control: +1.25 (n = 1) points.",
        "One seed: a difference under 0.5 points proves nothing; run more with -S 'seeds=[0,1,2]'.",
        MEANING,
    ]
    assert said({"control": SEEDS["control"], "exp1": SEEDS["exp1"]}) == [
        "exp1 beats the control: +2.00 (95 % CI +2.00 … +2.00, n = 3) points.",
        MEANING,
    ]


def test_an_untrained_teacher():
    sentences = said(teacher={**TEACHER, "trained": False, "acc": 10.0})
    assert sentences[0] == (
        "The teacher was never trained: what is distilled from it is noise, and the table says "
        "nothing about the methods."
    )
    # Its lead is no news then.
    assert not [sentence for sentence in sentences if "lead the control" in sentence]
    assert not find(said(), "The teacher was never trained")


@pytest.mark.parametrize("arms", [ALL, NO_CONTROL, SEEDS])
def test_a_teacher_from_a_checkpoint(arms):
    sentences = said(arms, teacher={**TEACHER, "checkpoint": "resnet.pt"})
    assert sentences[0] == (
        "The teacher started from the checkpoint resnet.pt: what that was trained on, and with "
        "which labels, is not known here."
    )
    assert not find(said(arms), "The teacher started")


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
    for control in (make_arm(82.0), make_arm(80.0, 81.0, 85.0)):
        found = find(said({"control": control}, teacher={**TEACHER, "acc": acc}), "The teacher ")
        assert found == ([] if lead is None else [f"The teacher {lead}: it has little to teach."])


@pytest.mark.parametrize(
    ("after_acc", "verdict"),
    [
        (83.25, "is ahead of the control: +1.25 (n = 1) points."),
        (82.5, "is ahead of the control: +0.50 (n = 1) points."),
        (82.4, "and the control differ by less than one seed can show: +0.40 (n = 1) points."),
        (82.0, "and the control differ by less than one seed can show: +0.00 (n = 1) points."),
        (81.6, "and the control differ by less than one seed can show: -0.40 (n = 1) points."),
        (81.5, "is behind the control: -0.50 (n = 1) points."),
        (72.0, "is behind the control: -10.00 (n = 1) points."),
    ],
)
def test_one_seed_is_held_against_the_control(after_acc, verdict):
    arms = {"control": make_arm(82.0), "exp2": make_arm(after_acc)}
    assert find(said(arms), "exp2 ") == [f"exp2 {verdict}"]


def test_several_seeds_are_held_against_the_control():
    assert [sentence for sentence in said(SEEDS) if sentence.startswith("exp")] == [
        "exp1 beats the control: +2.00 (95 % CI +2.00 … +2.00, n = 3) points.",
        "exp2 is not told apart from the control: +2.00 (95 % CI -0.48 … +4.48, n = 3) points.",
        "exp3 is worse than the control: -1.00 (95 % CI -1.25 … -0.75, n = 3) points.",
    ]


def test_a_lead_of_many_points_that_spreads_proves_nothing():
    arms = {"control": make_arm(60.0, 60.0, 60.0), "exp1": make_arm(61.0, 60.0, 90.0)}
    (found,) = find(said(arms), "exp1 ")
    assert found.startswith("exp1 is not told apart from the control: +10.33 (95 % CI -")


def test_the_best_is_not_separated_from_some():
    found = find(said(SEEDS), "The data do not separate")
    assert len(found) == 1
    assert re.fullmatch(
        r"The data do not separate exp1 from exp2 \W*\+0\.00 "
        r"\(95 % CI -2\.48 … \+2\.48, n = 3\)\W*",
        found[0],
    )
    arms = {name: SEEDS[name] for name in ("control", "exp1", "exp3")}
    assert not find(said(arms), "The data do not separate")
    assert not find(said(SEEDS | {"exp2": SEEDS["exp3"]}), "The data do not separate")


@pytest.mark.parametrize(
    ("second", "third", "close"),
    [
        (82.123456, 81.5, []),
        (82.8, 81.5, ["exp2"]),
        (82.8, 83.25, ["exp2", "exp3"]),
        (82.75, 80.0, []),  # exactly half a point
    ],
)
def test_one_seed_separates_half_a_point(second, third, close):
    arms = {**ALL, "exp2": make_arm(second), "exp3": make_arm(third)}
    found = find(said(arms), "The data do not separate exp1 from")
    assert len(found) == bool(close)
    assert [name for name in ("exp2", "exp3") if found and name in found[0]] == close


@pytest.mark.parametrize("arms", [{"control": ALL["control"]}, {"control": SEEDS["control"]}])
def test_a_control_alone_beats_nobody(arms):
    sentences = said(arms)
    assert not [sentence for sentence in sentences if "the control" in sentence]
    assert not find(sentences, "The data do not separate")


@pytest.mark.parametrize("arms", [NO_CONTROL, {name: SEEDS[name] for name in ("exp1", "exp2")}])
def test_without_control(arms):
    sentences = said(arms)
    assert find(sentences, "No control was run")
    assert not [sentence for sentence in sentences if sentence.startswith("exp")]
    assert not find(sentences, "The teacher ")
    assert not find(said(), "No control was run")


def test_arms_without_a_seed_of_the_controls_are_not_judged():
    arms = {"control": make_arm(80.0, 81.0), "exp1": [make_record(99.0, seed=5)]}
    assert not find(said(arms), "exp1 ")


def test_further_methods_are_judged_after_the_experiments():
    arms = {"dkd": make_arm(85.0, 86.0), **SEEDS}
    judged = [sentence.split()[0] for sentence in said(arms) if ": " in sentence]
    assert judged == ["exp1", "exp2", "exp3", "dkd"]


def test_digits():
    assert find(said(source="digits (scikit-learn)"), "Digits are few and easy")
    assert not find(said(source="image folder digits"), "Digits are few and easy")


def test_the_best_arm_is_that_of_the_best_validation_accuracy():
    arms = {
        "exp2": make_arm(99.0, 99.0, validation_acc=80.0),
        "exp1": make_arm(50.0, validation_acc=81.0),
        "control": make_arm(60.0, validation_acc=79.0),
    }
    assert best_arm(arms) == "exp1"
    arms["control"] = make_arm(60.0, validation_acc=81.0)
    assert best_arm(arms) == "control", "of equals the first in the table"
    arms["exp2"][1]["validation_acc"] = 83.0  # the mean is 81.5
    assert best_arm(arms) == "exp2"
    arms["exp2"][0]["validation_acc"] = None
    assert best_arm(arms) == "control"
    assert best_arm({"exp1": make_arm(60.0, validation_acc=None)}) is None
    assert best_arm({}) is None
