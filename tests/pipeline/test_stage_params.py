"""A stage's `params` in dvc.yaml are exactly the parameters its code reads."""

import ast
import json
from functools import partial

import pytest
import yaml

from distillation.base.methods import EXPERIMENTS, further_methods
from distillation.base.params import make_params
from stages import (
    distill,
    eval_baseline,
    export_student,
    prepare_data,
    summarize,
    teacher_targets,
    train_control,
    train_teacher,
)

# Read only to reject a wrong name early; the stage's outputs do not depend on them.
CHECKED_ONLY = {
    "prepare_data": {"teacher", "student"}
    | {"teacher_optimizer", "teacher_optimizer_options", "optimizer", "optimizer_options"}
}

STAGES = {
    "prepare_data": prepare_data.main,
    "train_teacher": train_teacher.main,
    "eval_baseline": eval_baseline.main,
    "teacher_targets": teacher_targets.main,
    "train_control": train_control.main,
    **{f"distill_{name}": partial(distill.main, method=name) for name in EXPERIMENTS},
    "export_student": export_student.main,
    "summarize": summarize.main,
}
METHOD_STAGES = {
    f"distill@{name}": partial(distill.main, method=name) for name in further_methods()
}


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
    """Run all stages in one process and give the names each of them read."""
    read = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("workspace"))
        patch.delenv("DVC_ROOT", raising=False)
        patch.setenv("DVC_NO_ANALYTICS", "1")
        params = make_params({**tiny_values, "epochs": 1})
        for stage, main in {**STAGES, **METHOD_STAGES}.items():
            recording = Recording(params)
            main(recording)
            read[stage] = recording.read - CHECKED_ONLY.get(stage, set())
    return read


@pytest.fixture(scope="module")
def root_stages(repository):
    return yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def find_stage(root_stages, name):
    """Give a stage's entry, that of a group's stage with its item in place."""
    group, _, item = name.partition("@")
    text = json.dumps(root_stages[group]["do"] if item else root_stages[name])
    return json.loads(text.replace("${item}", item))


@pytest.mark.parametrize("stage", [*STAGES, *METHOD_STAGES])
def test_declared_params_are_those_read(stage, read_params, root_stages):
    declared = find_stage(root_stages, stage).get("params", [])
    assert set(declared) == read_params[stage]
    assert len(declared) == len(set(declared))


def test_every_parameter_is_read_by_a_stage_that_does_more_than_show_it(read_params, tiny_values):
    read = set().union(*(names for stage, names in read_params.items() if stage != "summarize"))
    assert {name.partition(".")[0] for name in read} == set(tiny_values)
    weights = {name for name in read if name.startswith("method_weights")}
    assert weights == {f"method_weights.{name}" for name in tiny_values["method_weights"]}


def test_the_summary_shows_every_parameter(read_params, tiny_values):
    assert read_params["summarize"] == set(tiny_values)


def test_stage_names_are_those_of_the_mission(root_stages):
    assert list(root_stages) == [*list(STAGES)[:-2], "distill", "export_student", "summarize"]
    assert root_stages["distill"]["foreach"] == "${methods}"


@pytest.mark.parametrize("method", further_methods())
def test_a_methods_own_imports_are_dependencies(method, root_stages, repository):
    """One is run for real, with its imports traced; the others differ from it in their file."""
    stage = find_stage(root_stages, f"distill@{method}")
    assert stage["cmd"] == f"python -m stages.distill {method}"
    assert f"distillation/losses/{method}.py" in stage["deps"]
    code = (repository / "distillation" / "losses" / f"{method}.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.partition(".")[0] in ("distillation", "stages"):
                assert f"{name.replace('.', '/')}.py" in stage["deps"]


def test_experiments_and_methods_differ_in_loss_and_weight_alone(root_stages):
    own = {"exp1": set(), "exp2": {"distillation/losses/exp2.py", "feature_weight"}}
    own["exp3"] = {"distillation/losses/exp3.py", "feature_weight"}
    own["dkd"] = {"distillation/losses/dkd.py", "method_weights.dkd"}

    def general(name):
        stage = find_stage(root_stages, f"distill{'@' if name == 'dkd' else '_'}{name}")
        lists = (stage.get(key, []) for key in ("deps", "params", "outs", "metrics", "plots"))
        entries = {json.dumps(entry) for entries in lists for entry in entries}
        assert {json.dumps(entry) for entry in own[name]} <= entries
        return {
            entry.replace(name, "NAME")
            for entry in entries - {json.dumps(entry) for entry in own[name]}
        }

    assert general("exp1") == general("exp2") == general("exp3") == general("dkd")


def test_every_training_leaves_the_same_files(root_stages):
    def files(stage, name):
        paths = [*stage["outs"], *stage.get("metrics", []), *stage.get("plots", [])]
        names = [path if isinstance(path, str) else next(iter(path)) for path in paths]
        return sorted(path.replace(name, "NAME") for path in names)

    expected = files(find_stage(root_stages, "distill@dkd"), "dkd")
    assert len(expected) == 5
    for name in EXPERIMENTS:
        assert files(root_stages[f"distill_{name}"], name) == expected
    assert files(root_stages["train_control"], "control") == expected
    teacher = [
        path.replace("models/", "models/students/")
        for path in files(root_stages["train_teacher"], "teacher")
    ]
    assert teacher == expected
