"""All methods on digits with five seeds by one command, `make compare`, at a tiny size."""

import json
import shlex
import subprocess
import sys

import pytest

from distillation.base.methods import DEFAULT_METHODS, further_methods
from distillation.results.intervals import correct_by_holm, paired_difference

pytestmark = [pytest.mark.slow, pytest.mark.full]

SEEDS = [0, 1, 2, 3, 4]
ALL_ARMS = [*DEFAULT_METHODS, *further_methods()]
TINY = (
    *("--teacher", "test_efficientnet", "--student", "test_resnet", "--image-size", "8"),
    *("--teacher-epochs", "3", "--epochs", "2", "--batch-size", "128", "--num-views", "2"),
)


@pytest.fixture(scope="module")
def comparison(repository, tmp_path_factory):
    """Give what the command printed and the results file it wrote."""
    results = tmp_path_factory.mktemp("comparison") / "results.json"
    printed = subprocess.run(
        ["make", "--dry-run", "--silent", "compare"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    command = shlex.split(printed.splitlines()[-1])
    assert command[:3] == ["python", "-m", "distillation"]
    done = subprocess.run(
        [sys.executable, *command[1:], *TINY, "--results-path", str(results)],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, results


def test_every_method_has_five_seeds_and_an_interval_over_the_control(comparison):
    printed, results = comparison
    content = json.loads(results.read_text(encoding="utf-8"))
    rows = {row["exp"]: row for row in content["summary"]}
    assert list(rows) == ALL_ARMS
    after = {
        method: {run["seed"]: run["after_acc"] for run in content["methods"][method]["seeds"]}
        for method in ALL_ARMS
    }
    assert {tuple(by_seed) for by_seed in after.values()} == {tuple(SEEDS)}
    for method, row in rows.items():
        assert row["n"] == len(SEEDS)
        assert row["after_acc_std"] > 0
        if method != "control":
            expected = paired_difference(after[method], after["control"])
            assert row["acc_over_control"] == pytest.approx(expected.mean, abs=1e-4)
            assert row["over_control_low"] == pytest.approx(expected.low, abs=1e-4)
            assert row["over_control_low"] < row["acc_over_control"] < row["over_control_high"]
    # Every method is another training, but that a map of one pixel leaves attention nothing to say.
    assert after["attention"] == after["exp1"]
    assert printed.count("WARNING: attention: its feature term is constant") == 1
    assert len({tuple(by_seed.values()) for by_seed in after.values()}) == len(ALL_ARMS) - 1


def test_the_words_follow_the_intervals(comparison):
    printed, results = comparison
    content = json.loads(results.read_text(encoding="utf-8"))
    assert all(remark in printed for remark in content["remarks"])
    assert not any(remark.startswith("One seed") for remark in content["remarks"])
    best = {
        method: {run["seed"]: run["best_acc"] for run in content["methods"][method]["seeds"]}
        for method in ALL_ARMS
    }
    over = {method: paired_difference(best[method], best["control"]) for method in ALL_ARMS[1:]}
    p_values = correct_by_holm({method: lead.p_value for method, lead in over.items()})
    for method, lead in over.items():
        (remark,) = [line for line in content["remarks"] if line.startswith(f"{method} ")]
        by_itself = (
            f"is {'ahead of' if lead.mean > 0 else 'behind'} the control by its own interval"
        )
        shown = "beats the control" if lead.mean > 0 else "is worse than the control"
        verdict = shown if p_values[method] < 0.05 else by_itself
        assert (verdict if lead.is_separated else "is not told apart from the control") in remark


def test_compare_reads_the_results_and_says_the_same(comparison, repository):
    _, results = comparison
    done = subprocess.run(
        [sys.executable, "-m", "distillation", "compare", str(results), "--format", "json"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    (table,) = json.loads(done.stdout)["tables"]
    expected = {row["exp"]: row for row in json.loads(results.read_text("utf-8"))["summary"]}
    found = {row["method"]: row for row in table["rows"]}
    assert sorted(found) == sorted(ALL_ARMS)
    for method, row in found.items():
        assert row["n"] == len(SEEDS)
        assert row["after_acc"] == pytest.approx(expected[method]["after_acc"], abs=1e-3)
        if method != "control":
            assert row["difference"] == pytest.approx(
                expected[method]["acc_over_control"], abs=1e-3
            )
