"""The model card says what the metrics say."""

import copy
import dataclasses
import re
import subprocess

import numpy as np
import pytest
from huggingface_hub import ModelCard

from distillation.export.card import make_card
from distillation.report.recommendation import recommend
from distillation.results.remarks import remarks
from tests.results.records import BALANCE

TEACHER = {"model": "test_efficientnet", "acc": 90.0, "trained": True}
ENVIRONMENT = {"commit": "c" * 40, "commit_date": "2026-03-01T12:00:00+00:00"}


@pytest.fixture
def card(exported, digits):
    def build(
        *,
        deploy=None,
        data=digits,
        methods=exported.methods,
        teacher=TEACHER,
        environment=ENVIRONMENT,
        **selection,
    ):
        return make_card(
            deploy or exported.deploy,
            selection=dataclasses.replace(exported.selection, **selection),
            methods=methods,
            teacher=teacher,
            data=data,
            environments={"teacher": environment, "exp1": environment},
        )

    return build


def test_numbers_are_the_metrics(card, exported):
    text, models = card(), exported.deploy["models"]
    assert "\n---\n\n# `test_resnet`, trained on digits (scikit-learn)\n\n" in text
    for values in models.values():
        assert f"| {values['file_bytes'] / 1e6:.2f} | {values['acc']:.2f} |" in text
        assert f"| {values['throughput_images_per_second']:,.0f} |" in text
    for name in ("student", "student_int8"):
        low, high = models[name]["acc_low"], models[name]["acc_high"]
        assert f"(95 % interval for 359 test images {low:.2f} … {high:.2f})" in text
    assert "all seeds of exp1: 70.50 ± 0.71 % (n = 2)" in text
    assert (
        "labels alone: +2.05 (95 % CI +1.41 … +2.69, n = 2) points at the best epochs; ahead of "
        "the control" in text
    )
    assert "359 of 359 predictions are the same" in text
    assert (
        "epoch 2 with seed 1, the best on the validation split (seeds that were trained: 0, 1)"
        in text
    )
    assert "calibration error: 0.051" in text
    assert "distillation from `test_efficientnet` (90.00 % on the test images)" in text
    assert "1,295 training images (1,295 with labels), 143 for validation, 359 for testing" in text
    assert "python -m distillation predict --model student.onnx" in text
    assert "uint8 (batch, 3, 16, 16)" in text
    assert "One seed" not in text


def test_top5_accuracy_is_said_where_it_was_measured(card, exported):
    assert "top-5" not in card()
    record = {**exported.selection.record, "best_top5": 91.256}
    assert "\n- top-5 accuracy: 91.26 %\n" in card(record=record)


def test_the_commit_is_named(card):
    text = card()
    assert "The code is that of commit cccccccccc of 2026-03-01." in text
    (commands,) = re.findall(r"```sh\n(git checkout .*?)```", text, re.DOTALL)
    assert commands == f"git checkout {'c' * 40}\nmake setup\n. .venv/bin/activate\ndvc repro\n"
    changed = card(environment={**ENVIRONMENT, "uncommitted_changes": True})
    assert "changes that no commit holds when these were trained: teacher, exp1." in changed
    unknown = card(environment={})
    assert "The commit was not recorded." in unknown
    assert "git checkout" not in unknown


def test_card_report_and_remarks_have_one_lead(card, exported):
    """The last epoch, which is far behind here, is nobody's lead."""
    methods = {
        name: [{**record, "after_acc": place * -30.0} for record in records]
        for place, (name, records) in enumerate(exported.methods.items())
    }
    lead = "+2.05 (95 % CI +1.41 … +2.69, n = 2)"
    assert f"labels alone: {lead} points at the best epochs; " in card(methods=methods)
    assert f"{lead} points at the best epochs" in recommend(methods).sentence
    teacher = {**TEACHER, "checkpoint": None}
    said = remarks(methods, teacher, source="shapes", balance=BALANCE)
    assert f"exp1 beats the control: {lead} points at the best epochs." in said


def test_a_student_that_is_behind_the_control_is_said_to_be(card, exported, record):
    methods = {
        **exported.methods,
        "control": [record(seed=seed, best_acc=75.0 + 0.9 * seed) for seed in (0, 1)],
    }
    assert (
        "n = 2) points at the best epochs; behind the control: the control is the one to take"
        in card(methods=methods)
    )
    methods["control"] = [*methods["control"][:1], record(seed=1, best_acc=60.0)]
    assert "n = 2) points at the best epochs; no difference from the control is shown" in card(
        methods=methods
    )


def test_the_checksums_are_the_files(card, exported, tmp_path):
    (block,) = re.findall(r"sha256sum --check` reads it:\n\n```\n(.*?)```", card(), re.DOTALL)
    names = [line.split()[1] for line in block.splitlines()]
    assert names == ["student.onnx", "student-int8.onnx", "model.safetensors"]
    sums = tmp_path / "sums"
    sums.write_text(block)
    subprocess.run(["sha256sum", "--check", "--strict", sums], cwd=exported.directory, check=True)


def test_what_a_reader_must_know_is_said(card, exported):
    deploy = copy.deepcopy(exported.deploy)
    deploy["remarks"] = ["The int8 student loses 3.20 points of accuracy: use student.onnx."]
    deploy["models"]["student"]["acc"], deploy["models"]["student_int8"]["acc"] = 80.0, 76.8
    text = card(deploy=deploy)
    assert "\n\n**The int8 student loses 3.20 points of accuracy: use student.onnx.**\n\n" in text
    assert "`student-int8.onnx` is kept as what it is: -3.20 points of accuracy" in text
    untrained = card(is_trained=False)
    assert "No epoch was run. Unless" in untrained
    assert "\n\nIt was not: no epoch was run.\n\n" in untrained
    assert "the best on the validation split" not in untrained
    deploy["models"]["student"]["acc"] = 76.801
    assert "kept as what it is: +0.00 points of accuracy" in card(deploy=deploy)
    one_seed = {name: records[:1] for name, records in exported.methods.items()}
    assert "One seed was trained" in card(methods=one_seed)
    assert "**which was not trained on these classes**" in card(
        teacher={**TEACHER, "trained": False}
    )
    alone = card(method="control")
    assert "by labels alone, without a teacher" in alone
    assert "distillation from" not in alone
    del deploy["models"]["teacher"]
    assert "the teacher, for comparison" not in card(deploy=deploy)


def test_names_from_users_are_not_markup(card, digits):
    names = ("<b>x</b>", "a|b", "`c`", "*d*", *map(str, range(60)))
    data = dataclasses.replace(digits, class_names=names, source="image folder <i>_my_")
    text = card(data=data)
    assert "\\<b\\>x\\</b\\>, a\\|b, \\`c\\`, \\*d\\*, 0" in text
    assert "and 34 more." in text
    assert "<i>" not in text.partition("\n---\n")[2]


def test_a_majority_class_stands_beside_every_accuracy(card, digits):
    labels = np.where(np.arange(len(digits.test)) < 36, digits.test.labels, 4)
    labels[labels == 7] = 4
    data = dataclasses.replace(
        digits,
        class_names=("_x_", *map(str, range(9))),
        test=dataclasses.replace(digits.test, labels=labels),
    )
    text, share = card(data=data), f"{100 * (labels == 4).mean():.2f} %"
    assert f"| test accuracy, % (always predicting 3: {share}) |" in text
    assert f"- **{share} of the test images are 3: always predicting it has that accuracy." in text
    assert "- **The test split has no image of 6: nothing is measured there, and" in text
    accuracy, _ = ModelCard(text).data.eval_results
    assert accuracy.metric_name == f"Accuracy (n = 359; always predicting 3: {share})"
    assert "always predicting" not in card()


def test_a_student_without_onnx_files(card, exported):
    known = exported.deploy
    student = {
        key: value
        for key, value in known["models"]["student"].items()
        if not key.startswith(("latency", "throughput"))
    }
    why = "There is no student.onnx and no student-int8.onnx: it cannot be expressed."
    deploy = {
        **known,
        "models": {"student": student},
        "agreement": None,
        "files": {"model.safetensors": known["files"]["model.safetensors"]},
        "remarks": [why],
    }
    text = card(deploy=deploy)
    assert f"**{why}**" in text
    row = f"| `model.safetensors`, not timed | {student['file_bytes'] / 1e6:.2f} |"
    assert row in text
    assert "- the student: " in text
    rest = text.replace(why, "")
    assert "student.onnx" not in rest
    assert "student-int8" not in rest
    assert "- onnx\n" not in rest
    assert "## How to use it with timm" in text
    assert "Measured in turns" not in text
    assert "Latency" not in text
