"""Experiments as a user runs them: `dvc exp run -S`, `dvc metrics diff`, `dvc exp apply`."""

import json

import pytest
from PIL import Image

from distillation.base.methods import DEFAULT_METHODS
from distillation.base.params import load_params
from distillation.base.workspace import Workspace
from distillation.cli import predict
from stages import distill, export_student, summarize

METHODS = [*DEFAULT_METHODS, "dkd"]
DISTILLED = ["distill_exp1", "distill_exp2", "distill_exp3", "distill@dkd"]
AFTER_TRAINING = ["export_student", "summarize"]
"""The stages that read what all methods left, in this order."""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("distill_exp1",), ["distill_exp1"]),
        pytest.param((), [*DISTILLED, *AFTER_TRAINING], marks=pytest.mark.full),
    ],
)
def test_alpha_reruns_what_distils_and_what_follows_and_shows_in_the_diff(
    asked, expected, work_tree
):
    before = work_tree.metrics("exp1")
    ran = work_tree.ran("exp", "run", "-n", "alpha", "-S", "alpha=0.7", *asked)
    assert sorted(ran) == sorted(expected)
    assert {work_tree.metrics(name)["teacher_outputs"] for name in METHODS[1:]} == {"stored"}
    after = work_tree.metrics("exp1")
    assert after["after_loss"] != before["after_loss"]
    diff = json.loads(work_tree.dvc("metrics", "diff", "--json"))
    if not asked:  # the last stage writes what is compared
        change = diff["metrics/methods/exp1.json"]["after_acc"]
        assert change["diff"] == pytest.approx(after["after_acc"] - before["after_acc"])
        assert "metrics/methods/control.json" not in diff
        (work_tree.root / ".venv").mkdir()
        (work_tree.root / ".venv" / ".installed").touch()
        printed = work_tree.run("make", "--no-print-directory", "show")
        header, *rows = [line for line in printed.splitlines() if not line.startswith("make")]
        # A column for each method whose number changed, and the parameter that did.
        assert {"exp1", "exp2", "exp3", "alpha"} <= set(header.split())
        assert any("0.7" in row.split() for row in rows)
    else:
        assert diff == {}
    shown = json.loads(work_tree.dvc("plots", "diff", "HEAD", "alpha", "--json"))
    (plot,) = shown["data"]["Validation loss"]
    assert sorted(plot["revisions"]) == ["HEAD", "alpha"]
    work_tree.restore()
    assert work_tree.changed_stages() == set()


@pytest.mark.full
def test_baseline_without_epochs_makes_the_diff_the_gain(work_tree):
    ran = work_tree.ran("exp", "run", "--temp", "-n", "baseline", "-S", "epochs=0")
    assert sorted(ran) == sorted(["check_inputs", "train_control", *DISTILLED, *AFTER_TRAINING])
    # A temporary experiment leaves the work tree alone.
    assert work_tree.status() == ""
    assert work_tree.changed_stages() == set()
    diff = json.loads(work_tree.dvc("metrics", "diff", "--json", "baseline"))
    for method in METHODS:
        metrics = work_tree.metrics(method)
        for key, gain in (("after_acc", "gain_acc"), ("after_f1", "gain_f1")):
            change = diff[f"metrics/methods/{method}.json"][key]
            assert change["diff"] == pytest.approx(metrics[gain], abs=2e-4)


@pytest.mark.full
def test_the_control_is_trained_for_other_lengths_and_nothing_else_is(work_tree):
    lengths = {epochs: f"train_control_for@{epochs}" for epochs in (1, 3)}
    ran = work_tree.ran("exp", "run", "-S", f"control_epochs={list(lengths)}")
    assert sorted(ran) == sorted(["check_inputs", *lengths.values(), "summarize"])
    for epochs in lengths:
        records = work_tree.metrics(f"costs/lengths/control_{epochs}")["seeds"]
        assert [record["epochs"] for record in records] == [epochs]
    report = (work_tree.root / "report/index.html").read_text(encoding="utf-8")
    assert "several lengths" in report
    for label in ("1 epoch", "2 epochs", "3 epochs"):
        assert f">{label}<" in report
    assert work_tree.changed_stages() == set()


def test_a_student_that_was_not_trained_is_shipped_by_name_and_predicts(
    work_tree, tmp_path, capsys
):
    best = work_tree.metrics("deploy")["method"]
    other = "exp1" if best != "exp1" else "exp2"
    workspace = Workspace(root=work_tree.root, scratch=None, device_name="cpu")
    params = load_params(work_tree.root / "params.yaml", epochs=0, export_method=other)
    distill.main(params, workspace, method=other)
    export_student.main(params, workspace)
    summarize.main(params, workspace)
    metrics = work_tree.metrics(other)
    assert metrics["gain_acc"] == 0
    assert work_tree.metrics("deploy")["method"] == other
    rows = {row["exp"]: row for row in work_tree.metrics("summary")["summary"]}
    assert rows[other]["after_acc"] == metrics["before_acc"]

    Image.new("L", (30, 20), 255).save(tmp_path / "white.png")
    model = work_tree.root / "models/student/student.onnx"
    capsys.readouterr()
    assert predict.main([str(tmp_path / "white.png"), "--json", "--model", str(model)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["class"] in [str(digit) for digit in range(10)]
    assert len(result["top"]) == 5
