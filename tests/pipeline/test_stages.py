"""What the stages of dvc.yaml declare: every file they import, every output they leave."""

import re

import pytest

from distillation.base.methods import DEFAULT_METHODS, EXPERIMENTS, further_methods, module_name
from tests.helpers.imports import holds_docstring_only, import_closure
from tests.helpers.stages import covers

STAGES = [
    "check_inputs",
    "prepare_data",
    "train_teacher",
    "eval_baseline",
    "teacher_targets",
    "train_control",
    "train_control_for@4",
    *(f"distill_{name}" for name in EXPERIMENTS),
    *(f"distill@{name}" for name in further_methods()),
    "export_student",
    "summarize",
]


@pytest.fixture(scope="module")
def stages(resolved, tiny_values):
    """Return the stages with every further method among them."""
    values = {**tiny_values, "methods": list(further_methods()), "control_epochs": [4]}
    return resolved.stages(values)


def imported_files(repository, command):
    """Return the files that a stage's command imports, its method's loss among them."""
    _, _, module, *options = command.split()
    # The objective imports a loss by its name, which no reading of imports can see.
    methods = options[1:] if options[:1] == ["--method"] else []
    return import_closure(repository, module, *map(module_name, methods))


def test_stage_names_are_those_of_the_mission(stages):
    assert list(stages) == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_dependencies_cover_every_import(name, stages, repository):
    imported = imported_files(repository, stages[name].command)
    uncovered = {
        path for path in imported if not any(covers(dep, path) for dep in stages[name].code)
    }
    missing = {path for path in uncovered if not holds_docstring_only(repository / path)}
    assert missing == set(), f"{name} imports what its deps do not list"


@pytest.mark.parametrize("name", STAGES)
def test_no_dependency_is_without_an_import(name, stages, repository):
    imported = imported_files(repository, stages[name].command)
    unused = {dep for dep in stages[name].code if not any(covers(dep, path) for path in imported)}
    assert unused == set(), f"{name} lists what it does not import"


def test_imports_are_found_wherever_they_stand(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    for name in ("first", "lazy", "nested", "typed", "unused"):
        (package / f"{name}.py").touch()
    (package / "__init__.py").write_text("import package.first")
    (tmp_path / "start.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import package\n"
        "if TYPE_CHECKING:\n"
        "    from package import typed\n"
        "else:\n"
        "    def load():\n"
        "        from package import lazy\n"
        "        with open(lazy.__file__):\n"
        "            import package.nested as inner\n"
    )
    assert import_closure(tmp_path, "start") == {
        "start.py", "package/__init__.py", "package/first.py", "package/lazy.py",
        "package/nested.py",
    }  # fmt: skip


def test_experiments_and_methods_differ_in_loss_and_weight_alone(stages):
    own = {
        "distill_exp1": set(),
        "distill_exp2": {"feature_weight"},
        "distill_exp3": {"feature_weight"},
        **{f"distill@{name}": {f"method_weights.{name}"} for name in further_methods()},
    }

    def general(stage):
        method = stage[len("distill_") :]
        declared = stages[stage]
        names = {*declared.deps, *declared.outs, *declared.params}
        assert own[stage] | {f"distillation/losses/{method}.py"} <= names
        return {re.sub(rf"\b{method}\b", "NAME", name) for name in names - own[stage]}

    expected = general("distill_exp1")
    for stage in own:
        assert general(stage) == expected


def test_every_training_leaves_the_same_files(stages):
    def files(stage, name):
        return sorted(path.replace(name, "NAME") for path in stages[stage].outs)

    expected = files("distill@dkd", "dkd")
    assert len(expected) == 6
    for name in EXPERIMENTS:
        assert files(f"distill_{name}", name) == expected
    assert files("train_control", DEFAULT_METHODS[0]) == expected
    lengths = files("train_control_for@4", "control_4")
    assert sorted(path.replace("costs/lengths", "seeds") for path in lengths) == expected
    teacher = files("train_teacher", "teacher")
    assert [path.replace("models/", "models/students/") for path in teacher] == expected
