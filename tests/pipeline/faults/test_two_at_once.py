"""Two of everything at once: one waits or is told who has it, and nothing is torn."""

import os
import subprocess
import sys
import time
import traceback

import pytest

from distillation.base.files import new_file
from tests.helpers.kills import left_by, litter
from tests.helpers.work_tree import WorkTree

TINY_RUN = (
    *(sys.executable, "-m", "distillation", "--dataset", "digits", "--image-size", "8"),
    *("--teacher", "test_efficientnet", "--student", "test_resnet", "--teacher-epochs", "1"),
    *("--epochs", "1", "--seeds", "[0]", "--crop-padding", "1", "--experiment", "control", "1"),
)
WRITES = 400


def start(work_tree, *command):
    return subprocess.Popen(
        command,
        cwd=work_tree.root,
        env=work_tree.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def run_both(first, second, delay=0.0):
    """Run two commands at once; returns status and output of each."""
    started = [start(*first)]
    time.sleep(delay)
    started.append(start(*second))
    outputs = [process.communicate(timeout=300)[0] for process in started]
    return [(one.returncode, output) for one, output in zip(started, outputs, strict=True)]


def assert_one_was_told(ends, words):
    """At least one did it, and the other did too or was told why not in a sentence."""
    for status, output in ends:
        assert "Traceback" not in output
        assert status == 0 or any(word in output for word in words), output
    assert min(status for status, _ in ends) == 0, ends


@pytest.mark.parametrize("stage", ["prepare_data", "train_control", "teacher_targets", "summarize"])
def test_a_stage_twice(stage, work_tree, attempt, draw):
    delay = draw.uniform(0, 2)
    attempt("two of a stage", f"{stage}, {delay:.1f} s apart")
    before = left_by(work_tree)
    command = (work_tree, sys.executable, "-m", f"stages.{stage}")
    ends = run_both(command, command, delay)
    assert_one_was_told(ends, [f"{stage} is running here already, as process "])
    assert left_by(work_tree) == before
    assert litter(work_tree) == []


@pytest.mark.parametrize("stage", ["eval_baseline", "distill_exp2"])
def test_dvc_repro_twice(stage, work_tree, attempt, draw):
    delay = draw.uniform(0, 3)
    attempt("two of dvc repro", f"{stage}, {delay:.1f} s apart")
    before = left_by(work_tree)
    command = (work_tree, "dvc", "repro", "--no-run-cache", "-f", "-s", stage)
    ends = run_both(command, command, delay)
    assert_one_was_told(ends, ["Unable to acquire lock", "is busy, it is being blocked by"])
    work_tree.dvc("repro")
    assert left_by(work_tree) == before
    assert work_tree.changed_stages() == set()


def test_a_repro_beside_a_temporary_experiment(work_tree, attempt, draw):
    attempt("dvc repro beside exp run --temp")
    before = left_by(work_tree)
    repro = (work_tree, "dvc", "repro", "--no-run-cache", "-f", "-s", "train_control")
    experiment = (work_tree, "dvc", "exp", "run", "--temp", "-S", "feature_weight=0.7")
    ends = run_both(experiment, repro, draw.uniform(0, 4))
    assert_one_was_told(ends, ["Unable to acquire lock", "is busy, it is being blocked by"])
    work_tree.dvc("repro")
    assert left_by(work_tree) == before


def test_two_clones_with_one_cache(work_tree, tmp_path, attempt):
    attempt("two clones with one cache")
    other = work_tree.copy(tmp_path / "other")
    for tree in (work_tree, other):
        tree.dvc("cache", "dir", "--local", str(tmp_path / "cache"))
        tree.run("rm", "-rf", ".dvc/cache")
    before = left_by(work_tree)
    command = ("dvc", "repro", "--no-run-cache", "-f", "-s", "train_control")
    ends = run_both((work_tree, *command), (other, *command))
    assert [status for status, _ in ends] == [0, 0], ends
    for tree in (work_tree, other):
        assert left_by(tree) == before


def test_a_run_folder_twice(work_tree, tmp_path, attempt, draw):
    attempt("two of python -m distillation, one folder")
    command = (work_tree, *TINY_RUN, "--run-dir", str(tmp_path / "run"))
    ends = run_both(command, command, draw.uniform(0, 2))
    assert_one_was_told(ends, ["is running here already, as process "])
    both = WorkTree(tmp_path / "run")
    alone = WorkTree(tmp_path / "alone")
    work_tree.run(*TINY_RUN, "--run-dir", str(alone.root))
    work_tree.run(*TINY_RUN, "--run-dir", str(both.root))
    assert left_by(both) == left_by(alone)


def test_a_results_file_twice(work_tree, tmp_path, attempt):
    attempt("two of python -m distillation, one results file")
    results = tmp_path / "results.csv"
    command = (work_tree, *TINY_RUN, "--results-path", str(results))
    ends = run_both(command, command)
    assert [status for status, _ in ends] == [0, 0], ends
    assert results.read_text(encoding="utf-8").count("\n") == 3
    assert [path.name for path in tmp_path.iterdir() if path.name != "work"] == ["results.csv"]


def test_two_writers_of_a_file(tmp_path, attempt):
    attempt("two writers of one file")
    path = tmp_path / "results"
    ours = [bytes([number]) * 50_000 for number in range(2)]
    children = []
    for content in ours:
        if (pid := os.fork()) == 0:
            try:
                for _ in range(WRITES):
                    with new_file(path) as new:
                        new.write_bytes(content)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(pid)
    seen = 0
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0
            children.remove(pid)
        if path.exists():
            assert path.read_bytes() in ours
            seen += 1
    assert seen
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_two_predictions(work_tree, attempt):
    attempt("two of predict")
    image = work_tree.root / "image.png"
    work_tree.run(
        sys.executable, "-c", f"from PIL import Image; Image.new('L', (8, 8)).save({str(image)!r})"
    )
    command = (work_tree, sys.executable, "-m", "distillation", "predict", "--json", str(image))
    (one, first), (two, second) = run_both(command, command)
    assert (one, two) == (0, 0), first + second
    assert first == second
