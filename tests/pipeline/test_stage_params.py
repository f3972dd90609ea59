"""A stage's `params` in dvc.yaml are exactly the parameters its code reads."""

from functools import partial

import pytest
import yaml

from distillation.params import make_params
from stages import (
    distill,
    eval_baseline,
    prepare_data,
    summarize,
    teacher_targets,
    train_control,
    train_teacher,
)

# Read only to reject a wrong name early; the stage's outputs do not depend on them.
CHECKED_ONLY = {"prepare_data": {"teacher", "student"}}

# Whether the checkpoint matters is only asked for a teacher that is not trained here.
VALUES = {"eval_baseline": {"teacher_epochs": 0}}

MAINS = {
    "prepare_data": prepare_data.main,
    "train_teacher": train_teacher.main,
    "eval_baseline": eval_baseline.main,
    "teacher_targets": teacher_targets.main,
    "train_control": train_control.main,
    "distill_exp1": partial(distill.main, experiment="exp1"),
    "distill_exp2": partial(distill.main, experiment="exp2"),
    "distill_exp3": partial(distill.main, experiment="exp3"),
    "summarize": summarize.main,
}


class Recording:
    """Hands out parameters and remembers which were asked for."""

    def __init__(self, params):
        self._params = params
        self.read = set()

    def __getattr__(self, name):
        self.read.add(name)
        return getattr(self._params, name)


@pytest.fixture(scope="module")
def read_params(tmp_path_factory, tiny_values):
    """Run all stages in one process and give the names each of them read."""
    read = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("workspace"))
        patch.delenv("DVC_ROOT", raising=False)
        patch.setenv("DVC_NO_ANALYTICS", "1")
        for stage, main in MAINS.items():
            values = {**tiny_values, "epochs": 1, **VALUES.get(stage, {})}
            recording = Recording(make_params(values))
            main(recording)
            read[stage] = recording.read - CHECKED_ONLY.get(stage, set())
    return read


@pytest.mark.parametrize("stage", MAINS)
def test_declared_params_are_those_read(stage, read_params, repository):
    stages = yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert set(stages[stage].get("params", [])) == read_params[stage]


def test_every_parameter_is_read_by_a_stage(read_params, tiny_values):
    assert set().union(*read_params.values()) == set(tiny_values)


def test_stage_names_are_those_of_the_mission(repository):
    stages = yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == list(MAINS)
