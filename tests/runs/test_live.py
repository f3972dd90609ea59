"""The curves of a training, beside others of its stage."""

import types

import pytest

from distillation.runs.live import epoch_reporter

TRAINING = types.SimpleNamespace(
    name="exp1", recipe=types.SimpleNamespace(epochs=2, seed=0), num_steps=2
)


def end_with(monkeypatch, folder, file):
    """Let DVCLive end as it does when another training has just removed the file."""

    def remove():
        (folder / file).unlink()

    monkeypatch.setattr("dvclive.live.cleanup_dvclive_step_completed", remove)
    with epoch_reporter(TRAINING, folder / "live", history=[], track=lambda epoch, values: None):
        pass


def test_another_training_may_have_removed_the_sign_of_a_step(monkeypatch, tmp_path):
    end_with(monkeypatch, tmp_path, "DVCLIVE_STEP_COMPLETED")


def test_another_file_that_is_missing_is_an_error(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError):
        end_with(monkeypatch, tmp_path, "other")
