"""What the report reads, what it can do without, and what it refuses."""

import re
import subprocess
import sys

import numpy as np
import pytest

from distillation.base.errors import DistillationError
from distillation.report.inputs import ReportError
from distillation.results.metrics_files import MetricsFileError
from distillation.runs.predictions import Predictions


def test_methods_come_in_the_order_of_the_table(project):
    inputs = project.read("exp3", "exp1", "control", "exp2")
    assert list(inputs.methods) == ["control", "exp1", "exp2", "exp3"]
    assert set(inputs.predictions) == {"teacher", *inputs.methods}
    assert inputs.has_control
    assert inputs.deploy["method"] == "exp3"
    assert inputs.environments["exp1"]["cpu"] == "A CPU"


@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "metrics/seeds/exp1.json",
        "metrics/seeds/teacher.json",
        "data/predictions/exp1.npz",
        "data/predictions/teacher.npz",
    ],
)
def test_a_method_without_metrics_or_predictions_is_an_error(project, name, is_whole):
    (project.root / name).unlink()
    with pytest.raises(DistillationError, match=rf"{name}: .*No such file.*; delete "):
        project.read("control", "exp1", is_whole=is_whole)


def test_sizes_and_speeds_may_be_missing_unless_the_run_is_whole(project):
    (project.metrics / "deploy.json").unlink()
    assert project.read("control", "exp1").deploy is None
    with pytest.raises(DistillationError, match=r"deploy\.json: .*No such file.*; delete "):
        project.read("control", "exp1", is_whole=True)


@pytest.mark.parametrize("name", ["baseline.json", "seeds/exp1.json", "deploy.json"])
def test_a_damaged_file_is_named(project, name):
    path = project.metrics / name
    path.write_text(path.read_text()[:-9], encoding="utf-8")
    with pytest.raises(MetricsFileError, match=rf"^{re.escape(str(path))}: cannot be read as JSON"):
        project.read("control", "exp1")


def test_a_needed_file_that_is_missing_is_named(project):
    (project.metrics / "baseline.json").unlink()
    with pytest.raises(
        MetricsFileError, match=r"baseline\.json: cannot be read as JSON .*No such file"
    ):
        project.read("control")


@pytest.mark.parametrize("content", [{}, {"seeds": []}, {"seeds": {}}])
def test_metrics_without_trainings_are_refused(project, content):
    project.write("seeds/exp1.json", content)
    with pytest.raises(
        MetricsFileError, match=r"exp1\.json: seeds(:| is missing).*; delete it and"
    ):
        project.read("control", "exp1")


def test_a_file_that_is_no_object_is_refused(project):
    project.write("deploy.json", [1])
    with pytest.raises(MetricsFileError, match=r"deploy\.json: got list; allowed: an object"):
        project.read("control")


def test_predictions_of_other_images_are_refused(project):
    path = project.predictions / "exp1.npz"
    Predictions(
        logits=np.zeros((2, 240, 3), dtype=np.float32),
        seeds=np.array([0, 1]),
        labels=np.zeros(240, dtype=np.int64),
        class_names=("circle", "square", "star"),
    ).save(path)
    with pytest.raises(ReportError, match=rf"^{path}: its labels or classes are not those"):
        project.read("control", "exp1")
    path.write_bytes(b"damaged")
    with pytest.raises(DistillationError, match=rf"^{path}: no complete file of predictions"):
        project.read("control", "exp1")


def test_the_report_imports_no_torch():
    code = "import sys, distillation.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
