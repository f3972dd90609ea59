"""A killed `dvc repro` goes on where it was and ends with the same bits: real kills, real dvc."""

import csv
import re

import pytest

REPRO = ("repro", "--no-run-cache", "--force", "--single-item")


@pytest.fixture(autouse=True)
def restored(pipeline):
    """Leave the committed state to the next test: a repeated stage's curves hold other times."""
    yield
    pipeline.restore()


@pytest.fixture
def finished(pipeline):
    """Give a function that collects what a stage's run left, without its timings."""

    def collect(method: str) -> dict:
        live = pipeline.root / "metrics/live" / method
        files = [path for path in sorted(live.rglob("*.tsv")) if path.stem != "images_per_second"]
        curves = {}
        for path in files:
            with path.open(encoding="utf-8") as file:
                rows = csv.DictReader(file, delimiter="\t")
                curves[f"{path.relative_to(live).parts[0]} {path.stem}"] = [
                    {key: value for key, value in row.items() if key != "timestamp"} for row in rows
                ]
        return {
            "metrics": pipeline.metrics(method),
            "seeds": pipeline.metrics(f"seeds/{method}"),
            "weights": (pipeline.root / f"models/students/{method}.safetensors").read_bytes(),
            "predictions": (pipeline.root / f"data/predictions/{method}.npz").read_bytes(),
            "curves": curves,
        }

    return collect


def states(pipeline, method: str) -> list:
    return sorted((pipeline.root / ".scratch" / method).rglob("state"))


@pytest.mark.parametrize(
    ("stage", "method", "at"),
    [
        ("distill_exp3", "exp3", "step:15"),  # of 11 steps an epoch: in the second epoch
        ("distill_exp3", "exp3", "save:2"),
        ("distill_exp1", "exp1", "save:1"),
        ("train_control", "control", "step:20"),
    ],
)
def test_a_killed_run_goes_on_and_ends_with_the_same_bits(stage, method, at, pipeline, finished):
    expected = finished(method)
    pipeline.dvc_killed(*REPRO, stage, at=at)
    assert not (pipeline.root / f"models/students/{method}.safetensors").exists()
    has_state = at != "save:1"
    assert len(states(pipeline, method)) == has_state
    output = pipeline.dvc(*REPRO, stage)
    assert (f"{method}: going on after epoch 1 of 2" in output) is has_state
    assert (f"{method} epoch 1/2: " in output) is not has_state
    assert f"{method} epoch 2/2: " in output
    assert finished(method) == expected
    assert len(expected["curves"]["seed0 acc"]) == 2
    assert not list((pipeline.root / ".scratch" / method).iterdir())
    # The lock file differs by the hash of the curves, which hold times.
    assert pipeline.status() in ("", " M dvc.lock\n")


def test_a_damaged_state_is_set_aside_and_the_training_starts_over(pipeline, finished):
    expected = finished("exp2")
    pipeline.dvc_killed(*REPRO, "distill_exp2", at="step:15")
    (state,) = states(pipeline, "exp2")
    state.write_bytes(state.read_bytes()[:-1])
    output = pipeline.dvc(*REPRO, "distill_exp2")
    assert f"WARNING: exp2: {state} cannot be used (it is damaged or cut short)" in output
    assert "exp2 epoch 1/2: " in output
    assert finished("exp2") == expected
    assert [path.name for path in (pipeline.root / ".scratch/exp2").iterdir()] == ["set-aside"]


def test_another_alpha_does_not_go_on_from_a_killed_run(pipeline):
    pipeline.dvc_killed(*REPRO, "distill_exp1", at="step:15")
    override = ("-S", "alpha=0.3", "--temp", "-n", "other", "distill_exp1")
    assert "going on" not in pipeline.dvc("exp", "run", *override)
    assert len(states(pipeline, "exp1")) == 1
    assert "going on after epoch 1" in pipeline.dvc(*REPRO, "distill_exp1")
    assert states(pipeline, "exp1") == []


def test_a_killed_temporary_experiment_goes_on_too(pipeline):
    override = ("-S", "alpha=0.4", "--temp", "distill_exp1")
    pipeline.dvc_killed("exp", "run", *override, at="step:15")
    assert len(states(pipeline, "exp1")) == 1
    assert "exp1: going on after epoch 1 of 2" in pipeline.dvc("exp", "run", *override)
    assert states(pipeline, "exp1") == []


def test_a_run_killed_at_its_second_seed_keeps_the_first(two_seeds, finished):
    expected = finished("exp3")
    assert {name.split()[0] for name in expected["curves"]} == {"seed0", "seed1"}
    # 22 steps a seed: in the second epoch of the second.
    killed = two_seeds.dvc_killed(*REPRO, "distill_exp3", at="step:35")
    assert re.findall(r"^(exp3 .*): loss", killed, re.MULTILINE) == [
        "exp3 seed 0 epoch 1/2", "exp3 seed 0 epoch 2/2", "exp3 seed 1 epoch 1/2",
    ]  # fmt: skip
    assert len(states(two_seeds, "exp3")) == 2
    output = two_seeds.dvc(*REPRO, "distill_exp3")
    assert "exp3 seed 0: going on after epoch 2 of 2" in output
    assert "exp3 seed 1: going on after epoch 1 of 2" in output
    assert re.findall(r"^(exp3 .*): loss", output, re.MULTILINE) == ["exp3 seed 1 epoch 2/2"]
    assert finished("exp3") == expected
    assert states(two_seeds, "exp3") == []
    assert not list((two_seeds.root / ".scratch/exp3").iterdir())
