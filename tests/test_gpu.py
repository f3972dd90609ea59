"""`make gpu`, tried on the CPU: tiny sizes, no DVC, and what is said when something is missing."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_parts, hardware, measure
from benchmarks.processes import run_logged
from distillation.base.durations import keep_duration
from distillation.base.files import write_json

WITHOUT_DVC = """
import sys
from importlib.machinery import PathFinder

MISSING = ("dvc", "dvclive", "onnx", "onnxruntime", "onnxscript", "psutil")


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in MISSING else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""
"""What Python runs at its start, of any process: these packages are not to be found."""


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.full
@pytest.mark.slow
def test_it_runs_without_dvc_and_leaves_json(repository, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_DVC)
    command = ["make", "gpu", f"PYTHON={sys.executable}"]
    options = "--device cpu --tiny --parts tests epochs job"
    done = subprocess.run(
        [*command, f"GPU_OPTIONS={options} --run-dir {tmp_path / 'run'}"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OUT": str(tmp_path / "out")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    parts = read(out / "summary.json")["parts"]
    assert {name: part["status"] for name, part in parts.items()} == {
        "tests": "done",
        "epochs": "done",
        "job": "done",
    }
    tests, job = read(out / "tests.json"), read(out / "job.json")
    assert tests["failed"] == 0
    assert any("test_on_a_gpu" in case["name"] for case in tests["cases"])
    assert [row["exp"] for row in job["table"]] == ["control", "exp1", "exp2", "exp3"]
    assert set(job["stage_seconds"]) >= {"train_teacher", "train_control", "distill exp3"}
    assert job["went_on_where_another_call_was"] is False
    (row,) = read(out / "epochs.json")["rows"].values()
    assert row["epoch_seconds"] == [row["seconds"]]
    # The machine that lends a GPU hands back 8 files.
    assert len(list(out.iterdir())) <= 6


@pytest.fixture
def options(tmp_path):
    return gpu.parse_options(["--output-dir", str(tmp_path), "--device", "cpu"])


@pytest.fixture
def main(monkeypatch, tmp_path):
    """Run the command here, with parts that the test gives; returns status and summary."""
    monkeypatch.setattr(hardware, "stamp", lambda: {"commit": "c"})

    def run(parts, *further):
        for name, part in parts.items():
            monkeypatch.setattr(gpu_parts, f"run_{name}", part)
        arguments = ["--device", "cpu", "--output-dir", str(tmp_path), "--parts", *parts]
        return gpu.main([*arguments, *further]), read(tmp_path / "summary.json")["parts"]

    return run


def test_a_part_that_fails_stops_no_other(main, tmp_path):
    def fail(options, seconds, keep):
        raise ValueError("no such luck")

    status, parts = main({"tests": fail, "job": lambda options, seconds, keep: {"status": "done"}})
    assert status == 1
    assert parts["tests"]["reason"] == "ValueError: no such luck"
    assert parts["job"]["status"] == "done"
    assert read(tmp_path / "tests.json")["commit"] == "c"


def test_what_is_found_stands_there_at_once_and_what_does_not_fit_is_named(main, tmp_path):
    def look(options, seconds, keep):
        keep({"status": "cut off", "rows": 1})
        assert read(tmp_path / "epochs.json")["rows"] == 1
        parts = read(tmp_path / "summary.json")["parts"]
        assert {name: part["status"] for name, part in parts.items()} == {
            "epochs": "cut off",
            "job": "not run",
        }
        time.sleep(1)
        return {"status": "done"}

    status, parts = main({"epochs": look, "job": pytest.fail}, "--seconds", "5.5")
    assert status == 1
    assert [part["status"] for part in parts.values()] == ["done", "not run"]
    assert read(tmp_path / "job.json")["status"] == "not run"


def test_every_row_is_one_that_the_benchmark_measures(options, monkeypatch, capsys):
    def run_json(module, *command, timeout_seconds):
        assert module == "benchmarks.measure"
        measure.main(command)
        return json.loads(capsys.readouterr().out)

    monkeypatch.setattr(gpu_parts, "run_json", run_json)
    monkeypatch.setattr(measure, "measure", lambda way, **asked: {"seconds": 1.5, "way": way})
    for part, num_rows in (("epochs", 4), ("ways", 10), ("peers", 3)):
        kept = []
        found = getattr(gpu_parts, f"run_{part}")(options, 60.0, kept.append)
        assert (found["status"], len(found["rows"]), len(kept)) == ("done", num_rows, num_rows)


def test_rows_without_time_are_named_and_a_failed_one_is_a_failure(options, monkeypatch):
    assert gpu_parts.run_ways(options, 0.0, pytest.fail)["status"] == "cut off"
    monkeypatch.setattr(gpu_parts, "run_json", lambda *given, **options: {"error": "no luck"})
    found = gpu_parts.run_epochs(options, 60.0, lambda found: None)
    assert found["status"] == "failed"
    assert {row["error"] for row in found["rows"].values()} == {"no luck"}


def test_missing_packages_are_named_at_once(monkeypatch, capsys):
    missing = ("pydantic", "scikit-learn", "dvc", "onnx")
    version_of = gpu._version_of
    monkeypatch.setattr(
        gpu, "_version_of", lambda name: None if name in missing else version_of(name)
    )
    assert gpu.main([]) == 2
    line = f"make gpu: pydantic, scikit-learn: not installed for {sys.executable}, and needed\n"
    assert capsys.readouterr().err == line


def test_a_package_that_is_too_old_is_named_with_both_versions(monkeypatch):
    assert gpu.find_outdated() == []
    version_of = gpu._version_of
    old = {"timm": "1.0.15", "torch": "2.11.0+cu128"}
    monkeypatch.setattr(gpu, "_version_of", lambda name: old.get(name) or version_of(name))
    assert gpu.find_outdated() == ["timm 1.0.15 (needed: >=1.0.31)"]


def test_a_job_that_goes_on_has_the_times_of_its_own_stages(options, monkeypatch, tmp_path):
    options.run_dir = tmp_path / "run"
    durations = options.run_dir / ".scratch" / "durations.json"
    durations.parent.mkdir(parents=True)
    write_json(durations, {"old": {"seconds": 1.0, "ended": time.time() - 5}})

    def run_logged(command, **given):
        keep_duration(durations, "new", 2.0)
        return 0

    monkeypatch.setattr(gpu_parts, "run_logged", run_logged)
    job = gpu_parts.run_job(options, 60.0, lambda found: None)
    assert job["stage_seconds"] == {"new": 2.0}


def test_a_gpu_that_is_not_there_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(hardware, "find_devices", lambda: ("cpu",))
    assert gpu.main(["--output-dir", str(tmp_path / "out")]) == 2
    assert "make gpu: no cuda device here; " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_pytest_the_tests_are_not_run(monkeypatch):
    monkeypatch.setattr(gpu_parts.importlib.util, "find_spec", lambda name: None)
    found = gpu_parts.run_tests(argparse.Namespace(), 60.0, pytest.fail)
    assert found == {"status": "not run", "reason": "pytest is not installed"}


def test_at_its_limit_a_command_ends_with_all_it_has_started(tmp_path):
    log = tmp_path / "log.txt"
    command = ["sh", "-c", "sleep 60 & echo $!; wait"]
    assert run_logged(command, log=log, timeout_seconds=0.5) is None
    started = Path("/proc", log.read_text().strip(), "stat")
    end = time.monotonic() + 10
    while started.exists() and started.read_text().split()[2] != "Z":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert run_logged(["sh", "-c", "echo two; exit 3"], log=log, timeout_seconds=60) == 3
    assert log.read_text().endswith("two\n")
