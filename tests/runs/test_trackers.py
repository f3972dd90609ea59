"""Curves in TensorBoard, Weights & Biases and MLflow: the real ones, without a network."""

import sqlite3
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distillation.runs.trackers import TrackerError, chosen_trackers, open_trackers

EPOCHS = [{"train/loss": 2.0, "validation/acc": 10.0}, {"train/loss": 1.0, "validation/acc": 50.0}]


@pytest.fixture
def track(tmp_path):
    """Return a function that sends two epochs to a tracker; returns its folder."""

    def run(name):
        settings = {"learning_rate": 0.1, "optimizer_options": {}, "patience_epochs": None}
        with open_trackers(
            [name], "exp1-seed0", group="first", settings=settings, folder=tmp_path
        ) as log:
            for epoch, values in enumerate(EPOCHS, start=1):
                log(epoch, values)
        return tmp_path / name

    return run


def test_tensorboard_has_the_curves(track):
    events = EventAccumulator(str(track("tensorboard") / "first" / "exp1-seed0"))
    events.Reload()
    for name in EPOCHS[0]:
        curve = [(event.step, event.value) for event in events.Scalars(name)]
        assert curve == [(1, EPOCHS[0][name]), (2, EPOCHS[1][name])]


def test_tensorboard_draws_a_run_that_goes_on_or_is_repeated_once(track):
    track("tensorboard")
    events = EventAccumulator(str(track("tensorboard") / "first" / "exp1-seed0"))
    events.Reload()
    assert [event.step for event in events.Scalars("validation/acc")] == [1, 2]


@pytest.mark.full
def test_mlflow_has_the_curves(track, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with sqlite3.connect(track("mlflow") / "mlflow.db") as database:
        rows = database.execute("select key, step, value from metrics order by step, key")
        assert rows.fetchall() == [
            (name, epoch, value)
            for epoch, values in enumerate(EPOCHS, start=1)
            for name, value in values.items()
        ]


@pytest.mark.full
def test_weights_and_biases_has_the_curves(track, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    (file,) = track("wandb").rglob("*.wandb")
    # Its own format, of which wandb has no reader in Python; another process writes it.
    names = (b"validation/acc", b"train/loss", b"exp1-seed0", b"first", b"learning_rate")
    deadline = time.monotonic() + 30
    while not all(name in file.read_bytes() for name in names):
        assert time.monotonic() < deadline, file.read_bytes()[:200]
        time.sleep(0.1)


def test_none_is_on_by_default(monkeypatch):
    monkeypatch.delenv("DISTILLATION_TRACKERS", raising=False)
    assert chosen_trackers() == []


def test_an_unknown_tracker_is_refused(monkeypatch):
    monkeypatch.setenv("DISTILLATION_TRACKERS", "tensorboard, comet")
    with pytest.raises(TrackerError, match=r"^DISTILLATION_TRACKERS: got 'comet'; allowed: tens"):
        chosen_trackers()


def test_a_tracker_that_is_not_installed_is_named(monkeypatch, tmp_path):
    (tmp_path / "wandb.py").write_text("raise ImportError('no wandb here')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setenv("DISTILLATION_TRACKERS", "wandb")
    with pytest.raises(TrackerError, match=r"wandb is not installed \(no wandb here\); pip inst"):
        chosen_trackers()
