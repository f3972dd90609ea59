"""A stage's `params` in dvc.yaml are exactly the parameters its code reads."""

from functools import partial

import pytest

from distillation.base.methods import EXPERIMENTS, further_methods
from distillation.base.params import make_params
from distillation.base.workspace import Workspace
from stages import (
    check_inputs,
    distill,
    eval_baseline,
    export_student,
    prepare_data,
    summarize,
    teacher_targets,
    train_control,
    train_teacher,
)

pytestmark = pytest.mark.slow

STAGES = {
    "check_inputs": check_inputs.main,
    "prepare_data": prepare_data.main,
    "train_teacher": train_teacher.main,
    "eval_baseline": eval_baseline.main,
    "teacher_targets": teacher_targets.main,
    "train_control": train_control.main,
    "train_control_for@2": partial(train_control.main, epochs=2),
    **{f"distill_{name}": partial(distill.main, method=name) for name in EXPERIMENTS},
    "export_student": export_student.main,
    "summarize": summarize.main,
}
METHOD_STAGES = {
    f"distill@{name}": partial(distill.main, method=name) for name in further_methods()
}
ALL = {**STAGES, **METHOD_STAGES}


class Recording:
    """Hands out parameters and remembers which were asked for."""

    def __init__(self, params):
        self._params = params
        self.read = set()

    def __getattr__(self, name):
        value = getattr(self._params, name)
        if isinstance(value, dict):
            return RecordingDict(name, value, self.read)
        self.read.add(name)
        return value


class RecordingDict(dict):
    """Remembers which entries were asked for; any other use counts as reading all of it."""

    def __init__(self, name, values, read):
        super().__init__(values)
        self._name, self._read = name, read

    def __getattribute__(self, attribute):
        if not attribute.startswith("_"):  # items, values, get, …
            self._read.add(self._name)
        return super().__getattribute__(attribute)

    def __iter__(self):
        self._read.add(self._name)
        return super().__iter__()

    def __contains__(self, key):
        self._read.add(f"{self._name}.{key}")
        return super().__contains__(key)

    def __getitem__(self, key):
        self._read.add(f"{self._name}.{key}")
        return super().__getitem__(key)


@pytest.fixture(scope="module")
def read_params(tmp_path_factory, tiny_values):
    """Run all stages in one process; returns the names of the parameters each of them read."""
    workspace = Workspace(root=tmp_path_factory.mktemp("run"), scratch=None, device_name="cpu")
    params = make_params({**tiny_values, "epochs": 1, "control_epochs": [2]})
    read = {}
    for stage, main in ALL.items():
        recording = Recording(params)
        main(recording, workspace)
        read[stage] = recording.read
    return read


@pytest.fixture(scope="module")
def stages(resolved, tiny_values):
    return resolved.stages(
        {**tiny_values, "methods": list(further_methods()), "control_epochs": [2]}
    )


@pytest.mark.parametrize("stage", ALL)
def test_declared_params_are_those_read(stage, read_params, stages):
    declared = set(stages[stage].params)
    if stage == "summarize":  # it tracks the whole file
        declared = {name.partition(".")[0] for name in declared}
    assert declared == read_params[stage]


def test_the_tables_stages_are_those_of_the_pipeline(stages):
    assert set(ALL) == set(stages)


def test_every_parameter_is_read_by_a_stage_that_does_more_than_show_it(read_params, tiny_values):
    read = set().union(*(names for stage, names in read_params.items() if stage != "summarize"))
    assert {name.partition(".")[0] for name in read} == set(tiny_values)
    weights = {name for name in read if name.startswith("method_weights")}
    assert weights == {f"method_weights.{name}" for name in tiny_values["method_weights"]}


def test_the_summary_shows_every_parameter(read_params, tiny_values):
    assert read_params["summarize"] == set(tiny_values)
