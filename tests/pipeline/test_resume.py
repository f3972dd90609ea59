"""A killed training goes on where it was and ends with the same bits: real kills, real dvc."""

import csv
import re
import signal
import subprocess

import pytest

# Ends dvc and its stage at once, as the kernel would: KILL_AT=step:N in the N-th optimizer step,
# KILL_AT=save:N with the N-th state written but not yet in its place.
KILLER = """
import os, signal, sys

what, _, number = os.environ["KILL_AT"].partition(":")
calls = 0

def count(*_):
    global calls
    calls += 1
    if calls == int(number):
        os.killpg(0, signal.SIGKILL)

if "-m" in sys.orig_argv and what == "step":
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    register_optimizer_step_pre_hook(count)
if what == "save":
    fsync = os.fsync

    def fsync_or_die(file):
        if os.readlink(f"/proc/self/fd/{file}").endswith("/state.tmp"):
            count()
        fsync(file)

    os.fsync = fsync_or_die
"""


@pytest.fixture
def kill(work_tree, tmp_path):
    """Return a function that runs dvc until it is killed, with its stage, at a place."""
    (tmp_path / "sitecustomize.py").write_text(KILLER, encoding="utf-8")

    def run(*arguments, at):
        done = subprocess.run(
            ["dvc", *arguments],
            cwd=work_tree.root,
            env={**work_tree.environment, "PYTHONPATH": str(tmp_path), "KILL_AT": at},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stdout
        return done.stdout

    return run


def finished(work_tree, method):
    """Collect what a method's stage left, without its times."""
    live = work_tree.root / "metrics/live" / method
    curves = {}
    for path in sorted(live.rglob("*.tsv")):
        if path.stem == "images_per_second":
            continue
        with path.open(encoding="utf-8") as file:
            rows = csv.DictReader(file, delimiter="\t")
            curves[f"{path.relative_to(live).parts[0]} {path.stem}"] = [
                {key: value for key, value in row.items() if key != "timestamp"} for row in rows
            ]
    return {
        "metrics": work_tree.metrics(method),
        "seeds": work_tree.metrics(f"seeds/{method}")["seeds"],
        "weights": (work_tree.root / f"models/students/{method}.safetensors").read_bytes(),
        "predictions": (work_tree.root / f"data/predictions/{method}.npz").read_bytes(),
        "curves": curves,
    }


def states(work_tree, method):
    return sorted((work_tree.root / ".scratch" / method).rglob("state"))


def test_a_run_killed_at_its_second_seed_goes_on_and_ends_with_the_same_bits(
    work_tree, kill, two_seeds
):
    expected = finished(two_seeds, "exp3")
    assert len(expected["curves"]["seed0 acc"]) == len(expected["curves"]["seed1 acc"]) == 2
    params = work_tree.root / "params.yaml"
    text, changes = re.subn(r"seeds:\n- 0\n", "seeds: [0, 1]\n", params.read_text(encoding="utf-8"))
    assert changes == 1
    params.write_text(text, encoding="utf-8")
    repro = ("repro", "--single-item", "distill_exp3")
    # Two epochs a seed: while the state after the second epoch of the second seed is written.
    killed = kill(*repro, at="save:4")
    assert epochs_in(killed) == ["seed 0 epoch 1/2", "seed 0 epoch 2/2", "seed 1 epoch 1/2"]
    assert not (work_tree.root / "models/students/exp3.safetensors").exists()
    assert len(states(work_tree, "exp3")) == 2
    output = work_tree.dvc(*repro)
    assert "exp3 seed 0: going on after epoch 2 of 2" in output
    assert "exp3 seed 1: going on after epoch 1 of 2" in output
    assert epochs_in(output) == ["seed 1 epoch 2/2"]
    assert finished(work_tree, "exp3") == expected
    assert not list((work_tree.root / ".scratch/exp3").iterdir())


def epochs_in(output):
    return re.findall(r"^exp3 (seed .*): loss", output, re.MULTILINE)


REPRO = ("repro", "--no-run-cache", "--force", "--single-item")


@pytest.mark.full
@pytest.mark.parametrize(
    ("stage", "method", "at"),
    [
        ("distill_exp3", "exp3", "step:15"),  # of 11 steps an epoch: in the second epoch
        ("distill_exp3", "exp3", "save:2"),
        ("distill_exp1", "exp1", "save:1"),
        ("train_control", "control", "step:20"),
    ],
)
def test_wherever_a_run_is_killed_it_ends_with_the_same_bits(stage, method, at, work_tree, kill):
    expected = finished(work_tree, method)
    kill(*REPRO, stage, at=at)
    assert not (work_tree.root / f"models/students/{method}.safetensors").exists()
    has_state = at != "save:1"
    assert len(states(work_tree, method)) == has_state
    output = work_tree.dvc(*REPRO, stage)
    assert (f"{method}: going on after epoch 1 of 2" in output) is has_state
    assert (f"{method} epoch 1/2: " in output) is not has_state
    assert f"{method} epoch 2/2: " in output
    assert finished(work_tree, method) == expected
    assert not list((work_tree.root / ".scratch" / method).iterdir())
    # The lock file differs by the hash of the curves, which hold times.
    changed = {line[3:] for line in work_tree.status().splitlines()}
    assert changed <= {"dvc.lock", f"metrics/costs/{method}.json"}


@pytest.mark.full
def test_a_killed_temporary_experiment_goes_on_and_another_alpha_does_not(work_tree, kill):
    def experiment(alpha):
        return ("exp", "run", "--temp", "-S", f"alpha={alpha}", "distill_exp1")

    kill(*experiment(0.4), at="save:2")
    assert len(states(work_tree, "exp1")) == 1
    assert "going on" not in work_tree.dvc(*experiment(0.3))
    assert len(states(work_tree, "exp1")) == 1
    assert "exp1: going on after epoch 1 of 2" in work_tree.dvc(*experiment(0.4))
    assert states(work_tree, "exp1") == []


@pytest.mark.full
def test_a_damaged_state_is_set_aside_and_the_training_starts_over(work_tree, kill):
    expected = finished(work_tree, "exp2")
    kill(*REPRO, "distill_exp2", at="save:2")
    (state,) = states(work_tree, "exp2")
    state.write_bytes(state.read_bytes()[:-1])
    output = work_tree.dvc(*REPRO, "distill_exp2")
    assert f"WARNING: exp2: {state} cannot be used (it is damaged or cut short)" in output
    assert "exp2 epoch 1/2: " in output
    assert finished(work_tree, "exp2") == expected
    assert [path.name for path in (work_tree.root / ".scratch/exp2").iterdir()] == ["set-aside"]
