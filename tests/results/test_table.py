"""The summary table, its formats and what is said of it."""

import csv
import io
import math

import pytest

from distillation.base.methods import DEFAULT_METHODS, further_methods
from distillation.results.table import (
    OVER_CONTROL_COLUMN,
    SPREAD_COLUMNS,
    SUMMARY_COLUMNS,
    difference,
    summary_table,
    to_csv,
    to_markdown,
    to_records,
    to_text,
)
from tests.results.records import (
    ALL,
    COLUMNS,
    NO_CONTROL,
    SEEDS,
    SHOWN,
    SPREADS,
    T_975_DF_2,
    make_method,
    make_record,
)

# The table


def test_columns_and_rows_have_their_order():
    table = summary_table(ALL)
    assert [*SUMMARY_COLUMNS, OVER_CONTROL_COLUMN, *SPREAD_COLUMNS] == COLUMNS
    assert list(table.columns) == COLUMNS
    assert list(table["exp"]) == ["control", "exp1", "exp2", "exp3"] == list(DEFAULT_METHODS)
    # Then further methods, and methods of the user's own in the order they were given.
    more = summary_table(
        {"mine": make_method(1.0), "dkd": make_method(3.0), "dist": make_method(2.0), **ALL}
    )
    assert list(more["exp"]) == [*DEFAULT_METHODS, "dist", "dkd", "mine"]
    assert {"dist", "dkd"} < set(further_methods())


def test_rows_hold_the_methods_metrics():
    for row in to_records(summary_table(ALL)):
        (record,) = ALL[row["exp"]]
        assert {key: row[key] for key in record if key in SHOWN} == {
            key: pytest.approx(record[key], abs=5e-5) for key in record if key in SHOWN
        }
        assert row["gain_acc"] == pytest.approx(record["after_acc"] - 10.0, abs=5e-5)
        assert row["gain_f1"] == pytest.approx(record["after_f1"] - 0.05)
        assert row["n"] == 1
        assert [row[key] for key in SPREADS] == [None] * 7


def test_rows_hold_means_and_deviations_over_the_seeds():
    rows = {row["exp"]: row for row in to_records(summary_table(SEEDS))}
    assert [row["n"] for row in rows.values()] == [3] * 4
    assert [row["after_acc"] for row in rows.values()] == [81.0, 83.0, 83.0, 80.0]
    assert [row["after_acc_std"] for row in rows.values()] == [1.0, 0.9539, 2.0, 1.0536]
    assert [row["best_acc_std"] for row in rows.values()] == [1.0, 0.9539, 2.0, 1.0536]
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
    assert interval("exp1") == pytest.approx([2.0, 2.0 - half / 10, 2.0 + half / 10], abs=1e-4)
    assert interval("exp2") == pytest.approx([2.0, 2.0 - half, 2.0 + half], abs=1e-4)
    assert interval("exp3") == pytest.approx([-1.0, -1.0 - half / 10, -1.0 + half / 10], abs=1e-4)


def test_p_is_corrected_for_all_that_are_held_against_the_control():
    """By themselves 0.0008, 0.0742 and 0.0033: times 3, 1 and 2."""
    rows = {row["exp"]: row["over_control_p"] for row in to_records(summary_table(SEEDS))}
    assert rows.pop("control") is None
    assert rows == pytest.approx({"exp1": 0.0025, "exp2": 0.0742, "exp3": 0.0066}, abs=1e-4)


def test_only_seeds_the_control_has_too_are_held_against_it():
    methods = {
        "control": [make_record(80.0, seed=0), make_record(81.0, seed=1)],
        "exp1": [make_record(83.0, seed=1), make_record(99.0, seed=2)],
        "exp2": [make_record(99.0, seed=2)],
    }
    rows = {row["exp"]: row for row in to_records(summary_table(methods))}
    assert (rows["exp1"]["acc_over_control"], rows["exp1"]["over_control_low"]) == (2.0, None)
    assert rows["exp2"]["acc_over_control"] is None
    assert rows["exp2"]["after_acc"] == 99.0


def test_any_key_of_two_methods_can_be_compared():
    methods = {
        "exp1": make_method(80.0, 81.0),
        "exp2": [make_record(80.0, 0.7), make_record(81.0, 0.6)],
    }
    methods["exp2"][1]["seed"] = 1
    assert difference(methods, "exp1", "exp2").mean == 0.0
    found = difference(methods, "exp1", "exp2", "after_f1")
    assert (found.mean, found.n) == (pytest.approx(0.15), 2)
    assert difference(methods, "exp1", "control") is None
    assert difference(methods, "control", "exp1") is None


def test_a_metric_that_is_missing_is_named():
    method = make_method(80.0)
    del method[0]["best_f1"]
    with pytest.raises(KeyError, match="best_f1"):
        summary_table({"exp1": method})


@pytest.mark.parametrize("methods", [NO_CONTROL, {name: SEEDS[name] for name in ("exp2", "exp1")}])
def test_without_control_what_compares_with_it_is_empty(methods):
    table = summary_table(methods)
    assert list(table["exp"]) == ["exp1", "exp2"]
    for column in (OVER_CONTROL_COLUMN, "over_control_low", "over_control_high"):
        assert all(math.isnan(value) for value in table[column])
        assert [row[column] for row in to_records(table)] == [None, None]
        rows = list(csv.DictReader(io.StringIO(to_csv(table, source="noise"))))
        assert [row[column] for row in rows] == ["", ""]
    n = len(methods["exp1"])
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
        "| 84.00 ± 2.00 | 0.8100 ± 0.0000 | +2.00 [-0.48, +4.48], p = 0.074 | 3 |",
    ]


def test_text_for_a_terminal():
    lines = to_text(summary_table(ALL)).splitlines()
    assert lines[0].split() == [*SHOWN, "n"]
    assert lines[1].split()[:4] == ["control", "10.00", "82.00", "+72.00"]
    assert lines[4].split()[-2:] == ["-0.50", "1"]
    assert len(lines) == 5
    lines = to_text(summary_table(SEEDS)).splitlines()
    assert lines[0].split() == [*SHOWN, "n"]
    assert lines[3].split()[-7:] == ["+2.00", "[-0.48,", "+4.48],", "p", "=", "0.074", "3"]
    assert lines[3].split()[2:5] == ["83.00", "±", "2.00"]
