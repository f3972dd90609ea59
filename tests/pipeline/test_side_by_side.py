"""Seeds that are trained side by side: the same bits, one end for all, and each goes on by itself.

Real processes, which are killed and fail for real.
"""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distillation.base.params import load_params
from distillation.base.workspace import Workspace
from stages import distill
from tests.helpers.kills import left_by, litter

SEEDS = [0, 1, 2]
EPOCHS = 4
CONTROL = (sys.executable, "-m", "stages.train_control")
END_SECONDS = 10
"""More than ending takes on a busy machine, and much less than what is left of a training."""

# In the process of seed 1, in its third epoch of 11 steps.
FAILURE = """
import multiprocessing, os, signal

steps = 0

def fail(*_):
    global steps
    steps += multiprocessing.current_process().name == "control seed 1"
    if steps == 25:
        {failure}

if "forkserver" in " ".join(__import__("sys").orig_argv):
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    register_optimizer_step_pre_hook(fail)
"""


def make_ready(work_tree, **values):
    """Give a work tree the seeds and other parameters."""
    params = work_tree.root / "params.yaml"
    known = yaml.safe_load(params.read_text(encoding="utf-8"))
    params.write_text(yaml.safe_dump({**known, "seeds": SEEDS, **values}), encoding="utf-8")
    return load_params(params)


def run_alone(params, work_tree, stage, num_processes, **options):
    """Run a stage in this process, and others that it starts; nothing else is left of it."""
    root = work_tree.root
    workspace = Workspace(
        root=root, scratch=root / ".scratch", device_name="cpu", num_processes=num_processes
    )
    stage.main(params, workspace, **options)
    return left_by(work_tree)


@pytest.fixture(scope="module")
def undisturbed(pipeline, tmp_path_factory):
    """Return a work tree, and what it holds after control's seeds ran one after another."""
    work_tree = pipeline.copy(tmp_path_factory.mktemp("undisturbed") / "work")
    make_ready(work_tree, epochs=EPOCHS)
    work_tree.environment |= {"DISTILLATION_PROCESSES": "1"}
    work_tree.run(*CONTROL)  # as a program, which records the commit of this work tree
    return work_tree, left_by(work_tree)


@pytest.fixture
def ready(undisturbed, tmp_path):
    """Return a copy of the work tree in which control's seeds are trained side by side."""
    work_tree = undisturbed[0].copy(tmp_path / "work")
    outputs = Workspace(root=work_tree.root)
    outputs.weights("control").unlink()
    outputs.predictions("control").unlink()
    outputs.seeds("control").unlink()
    shutil.rmtree(outputs.live("control"))
    work_tree.environment |= {"DISTILLATION_PROCESSES": "3", "PYTHONUNBUFFERED": "1"}
    return work_tree


def start(work_tree, *command, **environment):
    """Start a command in a process group of its own, as a terminal does."""
    return subprocess.Popen(
        command,
        cwd=work_tree.root,
        env={**work_tree.environment, "WHOSE": str(work_tree.root), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(process, pattern):
    printed = []
    for line in process.stdout:
        printed.append(line)
        if match := re.search(pattern, line):
            return match
    pytest.fail(f"never printed {pattern}: {''.join(printed)}{process.stderr.read()}")


def processes_of(work_tree):
    """Return the processes that were started in a work tree, by any of them."""
    found = []
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get("WHOSE") == str(work_tree.root)
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def workers_of(work_tree):
    """Return the processes that train, which have a lock of a state open."""
    return [
        process
        for process in processes_of(work_tree)
        if any("/.scratch/control/" in file.path for file in process.open_files())
    ]


def assert_all_end(work_tree):
    deadline = time.monotonic() + END_SECONDS
    while left := processes_of(work_tree):
        assert time.monotonic() < deadline, [process.cmdline() for process in left]
        time.sleep(0.05)


def assert_goes_on(work_tree, undisturbed, *command):
    """The same command trains what is left, and ends with the same bits."""
    printed = work_tree.run(*command)
    went_on = re.findall(r"^control seed (\d): going on after epoch (\d) of 4$", printed, re.M)
    assert sorted(seed for seed, _ in went_on) == ["0", "1", "2"]
    trained = re.findall(r"^control seed (\d) epoch (\d)/4: ", printed, re.M)
    expected = [(s, str(e)) for s, done in went_on for e in range(int(done) + 1, EPOCHS + 1)]
    assert sorted(trained) == sorted(expected)
    assert left_by(work_tree) == undisturbed[1]
    assert litter(work_tree) == []
    assert_all_end(work_tree)


@pytest.mark.parametrize("num_processes", [2, pytest.param(3, marks=pytest.mark.full)])
def test_how_many_run_at_once_changes_no_bit(num_processes, pipeline, work_tree, tmp_path):
    params, trees = make_ready(work_tree), [work_tree]
    trees.append(work_tree.copy(tmp_path / "other"))
    one, several = (
        run_alone(params, tree, distill, number, method="exp3")
        for tree, number in zip(trees, (1, num_processes), strict=True)
    )
    assert several == one
    assert [record["seed"] for record in trees[1].metrics("seeds/exp3")["seeds"]] == SEEDS
    assert trees[1].metrics("seeds/exp3")["environment"]["threads"] == 1
    assert litter(trees[1]) == []


def first_by_default(names):
    """Return names as parameters of a test; all but the first are left to full runs."""
    first, *others = names
    return [first, *(pytest.param(name, marks=pytest.mark.full) for name in others)]


FAILURES = {
    "SIGKILL": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        r"error: control seed 1: its process ended by SIGKILL, as happens when memory runs out; "
        r"with DISTILLATION_PROCESSES=1 one training runs at a time; the same command goes on "
        r"where each was\n",
    ),
    "a mistake": (
        "from distillation.base.errors import DistillationError as E; raise E('too much of it')",
        r"error: too much of it\n",
    ),
    "no memory": (
        "raise MemoryError",
        r"error: out of memory \(MemoryError\); use DISTILLATION_PROCESSES=1, .*\n",
    ),
    "a bug": (
        "raise KeyError('who did this')",
        r"Traceback [\s\S]*RuntimeError: control seed 1 failed in its process:\nTraceback [\s\S]*"
        r"KeyError: 'who did this'\n+",
    ),
}


@pytest.mark.parametrize("failure", first_by_default(FAILURES))
def test_one_that_fails_ends_the_others(failure, ready, undisturbed, tmp_path):
    code, message = FAILURES[failure]
    (tmp_path / "sitecustomize.py").write_text(FAILURE.format(failure=code), encoding="utf-8")
    process = start(ready, *CONTROL, PYTHONPATH=str(tmp_path))
    wait_for(process, "control seed 1 epoch 2/4")
    began = time.monotonic()
    printed, error = process.communicate(timeout=60)
    assert time.monotonic() - began < END_SECONDS
    assert process.returncode == 1
    assert re.fullmatch(message, error), error
    assert "control seed 1 epoch 3/4" not in printed
    assert_all_end(ready)
    assert_goes_on(ready, undisturbed, *CONTROL)


WAYS = {
    "Ctrl-C": (os.killpg, signal.SIGINT),
    "SIGKILL of the stage": (os.kill, signal.SIGKILL),
    "SIGTERM of the stage": (os.kill, signal.SIGTERM),
    "SIGTERM of all": (os.killpg, signal.SIGTERM),
    "SIGKILL of all": (os.killpg, signal.SIGKILL),
}


@pytest.mark.parametrize("way", first_by_default(WAYS))
def test_whatever_ends_the_stage_ends_all_and_each_goes_on(way, ready, undisturbed):
    process = start(ready, *CONTROL)
    ended = set()
    while len(ended) < len(SEEDS):  # the line of an epoch's end comes after its state
        ended.add(wait_for(process, r"control seed (\d) epoch \d/4")[1])
    deadline = time.monotonic() + END_SECONDS
    while len(list(ready.root.glob(".scratch/control/*/state"))) < len(SEEDS):
        assert time.monotonic() < deadline
    assert len(workers_of(ready)) == 3
    send, number = WAYS[way]
    send(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert_all_end(ready)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
        one = r"control seed \d after epoch \d of 4"
        assert re.fullmatch(rf"{word}: the same command goes on with {one}(, {one})*\n", error)
    assert_goes_on(ready, undisturbed, *CONTROL)


@pytest.mark.full
def test_a_killed_dvc_goes_on(ready, undisturbed):
    repro = ("dvc", "repro", "--single-item", "train_control")
    process = start(ready, *repro)
    for _ in SEEDS:
        wait_for(process, r"control seed \d epoch \d/4")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert_all_end(ready)
    printed = ready.dvc(*repro[1:])
    assert "going on after epoch" in printed
    assert left_by(ready) == undisturbed[1]
    assert litter(ready) == []


def test_a_log_tells_of_all_and_a_tracker_gets_each(undisturbed, tmp_path):
    work_tree = undisturbed[0].copy(tmp_path / "work")
    make_ready(work_tree, epochs=2, seeds=[5, 6])
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if '-m' in sys.orig_argv:\n"
        "    import distillation.base.progress as progress\n"
        "    progress.LINE_SECONDS = 0.0\n",
        encoding="utf-8",
    )
    python_path = f"{tmp_path}{os.pathsep}{work_tree.root}"
    environment = {"DISTILLATION_TRACKERS": "tensorboard", "PYTHONPATH": python_path}
    work_tree.environment |= {**environment, "DISTILLATION_PROCESSES": "2"}
    printed = work_tree.run(*CONTROL)
    lines = re.findall(
        r"^control seed(s 5, 6|s 6, 5| \d) epochs? (.*2): (\d+) of 44 steps \(\d+ %\), "
        r"about .* left$",
        printed,
        re.M,
    )
    who, epochs, done = zip(*lines, strict=True)
    assert list(map(int, done)) == sorted(map(int, done))
    assert done[-1] == "44"
    assert [one for one in who if "," in one]
    assert set(epochs) <= {"1/2", "2/2", "1, 2 of 2", "2, 1 of 2"}
    for seed in (5, 6):
        folder = work_tree.root / "trackers/tensorboard/workspace" / f"control-seed{seed}"
        events = EventAccumulator(str(folder))
        events.Reload()
        assert [event.step for event in events.Scalars("validation/acc")] == [1, 2]
        assert len(re.findall(rf"^control seed {seed} epoch \d/2: loss", printed, re.M)) == 2


@pytest.mark.full
def test_mlflow_gets_each(undisturbed, tmp_path):
    work_tree = undisturbed[0].copy(tmp_path / "work")
    make_ready(work_tree, epochs=1)
    work_tree.environment |= {"DISTILLATION_TRACKERS": "mlflow", "DISTILLATION_PROCESSES": "3"}
    work_tree.environment.pop("MLFLOW_TRACKING_URI", None)
    work_tree.run(*CONTROL)
    with sqlite3.connect(work_tree.root / "trackers/mlflow/mlflow.db") as database:
        names = database.execute("select name from runs order by name").fetchall()
        values = database.execute("select count(*) from metrics where key = 'validation/acc'")
        assert values.fetchall() == [(3,)]
    assert names == [(f"control-seed{seed}",) for seed in SEEDS]
