"""What is shown of several trainings at once, and how each goes on."""

import pytest

from distillation.runs.stage_progress import StageProgress


@pytest.fixture
def shown(monkeypatch):
    """Return what was shown, step by step: name, steps done, of how many."""
    shown = []

    class Recorded:
        def __init__(self, total, *, unit):
            self.total, self.done, self.name = total, 0, ""

        def describe(self, name):
            self.name = name

        def advance(self, number=1):
            self.done += number
            shown.append((self.name, self.done, self.total))

        skip = advance

        def pause(self):
            pass

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("distillation.runs.stage_progress.Progress", Recorded)
    return shown


def test_several_trainings_have_one_display(shown):
    with StageProgress("exp1", 3) as stage:
        assert stage.describe_rest() == ""
        one, two = (stage.listen(f"exp1 seed {seed}", seed) for seed in (4, 7))
        one.begin(20, 2, 0)
        one.advance()
        two.begin(20, 2, 1)  # a run that was killed had done its first epoch
        two.advance(3)
        two.end_epoch(2)
        one.advance(9)
        one.end_epoch(1)
        one.advance(1)
        assert stage.describe_rest() == (
            "the same command goes on with exp1 seed 4 after epoch 1 of 2, exp1 seed 7 after epoch "
            "2 of 2"
        )
        two.end()
        one.advance(9)
        one.end_epoch(2)
        one.end()
        assert stage.describe_rest() == ""
    assert shown == [
        ("", 0, 60),
        ("exp1 seed 4 epoch 1/2", 1, 60),
        ("exp1 seed 4 epoch 1/2", 11, 60),
        ("exp1 seeds 4, 7 epochs 1, 2 of 2", 14, 60),
        ("exp1 seeds 4, 7 epochs 1, 2 of 2", 23, 60),
        ("exp1 seeds 4, 7 epoch 2/2", 24, 60),
        ("exp1 seeds 4, 7 epoch 2/2", 24, 60),
        ("exp1 seed 4 epoch 2/2", 33, 60),
        ("exp1 seed 4 epoch 2/2", 33, 60),
    ]


def test_epochs_that_patience_saves_are_done(shown):
    with StageProgress("exp1", 1) as stage:
        one = stage.listen("exp1", 0)
        one.begin(50, 5, 0)
        assert stage.describe_rest() == "the same command goes on with exp1 from the first epoch"
        one.advance(20)
        one.end_epoch(2)
        one.end()
    assert shown[-1] == ("exp1 epoch 3/5", 50, 50)


def test_a_training_without_epochs_has_no_steps(shown):
    with StageProgress("exp1", 1) as stage:
        one = stage.listen("exp1", 0)
        one.begin(0, 0, 0)
        one.end()
    assert shown == [("", 0, 0), ("exp1 epoch 0/0", 0, 0)]
