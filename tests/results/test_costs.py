"""What trainings cost, and what the control reaches for as much, from files of the test."""

import json

import pytest

from distillation.base.workspace import Workspace
from distillation.results.costs import read_costs
from distillation.results.metrics_files import MetricsFileError


def records(*accuracies, epochs=10):
    return [{"best_acc": acc, "epochs": epochs} for acc in accuracies]


TEACHER = records(90.0, epochs=12)
METHODS = {"control": records(70.0, 72.0), "exp1": records(80.0)}
CONTROLS = {"control_40": records(84.0, epochs=40), "control_2": records(50.0, epochs=2)}
SECONDS = {
    "teacher": [1800.0],
    "targets": [120.0],
    "control": [240.0, 360.0],
    "exp1": [480.0],
    "control_40": [1200.0],
    "control_2": [60.0],
}


@pytest.fixture
def workspace(tmp_path):
    found = Workspace(root=tmp_path)
    for name, seconds in SECONDS.items():
        write(found, name, {"unit": "core", "seconds": seconds})
    return found


def write(workspace, name, content):
    path = workspace.costs(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_points_are_means_and_controls_come_by_their_cost(workspace):
    found = read_costs(workspace, METHODS, TEACHER, CONTROLS)
    assert [(one.epochs, one.minutes, one.acc) for one in found.controls] == [
        (2, 1.0, 50.0), (10, 5.0, 71.0), (40, 20.0, 84.0),
    ]  # fmt: skip
    assert found.controls[1].acc_std == pytest.approx(2**0.5)
    assert (found.unit, found.outputs_minutes, found.before_minutes) == ("core", 2.0, 32.0)
    (exp1,) = found.distilled
    assert (exp1.method, exp1.minutes, found.total_minutes(exp1)) == ("exp1", 8.0, 40.0)


def test_the_control_is_interpolated_over_the_logarithm_of_the_time(workspace):
    found = read_costs(workspace, METHODS, TEACHER, CONTROLS)
    assert found.control_at(5.0) == pytest.approx(71.0)
    assert found.control_at(10.0) == pytest.approx((71.0 + 84.0) / 2)  # halfway from 5 to 20
    assert found.control_at(0.99) is None
    assert found.control_at(40.0) is None


def test_without_a_method_nothing_comes_before(workspace):
    found = read_costs(workspace, {"control": METHODS["control"]}, TEACHER, {})
    assert (found.outputs_minutes, list(found.distilled)) == (0.0, [])


@pytest.mark.parametrize("name", ["teacher", "targets", "control", "exp1", "control_40"])
def test_a_cost_that_is_missing_is_named(workspace, name):
    workspace.costs(name).unlink()
    with pytest.raises(MetricsFileError, match=f"^{workspace.costs(name)}: "):
        read_costs(workspace, METHODS, TEACHER, CONTROLS)


@pytest.mark.parametrize("name", ["exp1", "targets"])
def test_core_and_gpu_minutes_are_not_compared(workspace, name):
    write(workspace, name, {"unit": "GPU", "seconds": [9.0]})
    assert read_costs(workspace, METHODS, TEACHER, CONTROLS) is None


def test_without_the_control_or_any_epoch_there_is_no_comparison(workspace):
    assert read_costs(workspace, {"exp1": METHODS["exp1"]}, TEACHER, {}) is None
    write(workspace, "control", {"unit": "core", "seconds": [0.0, 0.0]})
    assert read_costs(workspace, METHODS, TEACHER, CONTROLS) is None


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"unit": "core"}, "seconds"),
        ({"unit": "core", "seconds": []}, "seconds"),
        ({"unit": "core", "seconds": [-1.0]}, r"seconds\.0"),
        ({"unit": "hour", "seconds": [1.0]}, "unit"),
    ],
)
def test_a_damaged_file_is_named(workspace, content, key):
    write(workspace, "exp1", content)
    with pytest.raises(MetricsFileError, match=f"^{workspace.costs('exp1')}: {key}"):
        read_costs(workspace, METHODS, TEACHER, CONTROLS)
