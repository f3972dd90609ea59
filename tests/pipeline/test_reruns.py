"""Which stages run again after an edit or with another parameter, as the resolved stages tell.

Two changes are made for real, to see that `dvc` tells the same.
"""

import pytest
import yaml

from tests.helpers.stages import changed, with_value

EXPERIMENTS = {"distill_exp1", "distill_exp2", "distill_exp3"}
DKD = "distill@dkd"
DISTILLED = EXPERIMENTS | {DKD}
LENGTH = "train_control_for@3"
STUDENTS = DISTILLED | {"train_control", LENGTH}
AFTER_TRAINING = {"export_student", "summarize"}
ALL = {
    "check_inputs",
    "prepare_data",
    "train_teacher",
    "eval_baseline",
    "teacher_targets",
    *STUDENTS,
    *AFTER_TRAINING,
}


@pytest.fixture(scope="module")
def values(tiny_values):
    return {**tiny_values, "methods": ["dkd"], "control_epochs": [3]}


@pytest.fixture(scope="module")
def stages(resolved, values):
    return resolved.stages(values)


EDITS = {
    "distillation/base/files.py": ALL,
    "distillation/cli/predict.py": set(),
    "distillation/cli/train.py": set(),
    "distillation/compare/report.py": set(),
    "distillation/data/rows.py": ALL,
    "distillation/distilling/cache_plan.py": {"teacher_targets", *DISTILLED},
    "distillation/distilling/objective.py": DISTILLED,
    "distillation/distilling/storing.py": {"teacher_targets", *DISTILLED},
    "distillation/distilling/teacher_outputs.py": {"teacher_targets", *DISTILLED},
    "distillation/export/card.py": {"export_student"},
    "distillation/losses/dkd.py": {DKD},
    "distillation/losses/exp1.py": {"distill_exp1"},
    "distillation/losses/exp2.py": {"distill_exp2"},
    "distillation/losses/exp3.py": {"distill_exp3"},
    "distillation/losses/logits.py": DISTILLED,
    "distillation/losses/similarity.py": set(),  # does not run
    "distillation/models/classifier.py": ALL - {"prepare_data", "summarize"},
    "distillation/models/names.py": ALL - {"prepare_data", "summarize"},
    "distillation/report/template.html": {"summarize"},
    "distillation/results/intervals.py": AFTER_TRAINING,
    "distillation/results/measures.py": AFTER_TRAINING,
    "distillation/results/table.py": AFTER_TRAINING,
    "distillation/runs/seeds.py": {"train_teacher", *STUDENTS, *AFTER_TRAINING},
    "distillation/sources/decode.py": {"check_inputs", "prepare_data"},
    "distillation/training/loop.py": ALL - {"prepare_data", "summarize"},
    "distillation/training/optimizer.py": ALL - {"prepare_data", "summarize"},
    "stages/distill.py": DISTILLED,
    "stages/entry.py": ALL,
    "stages/summarize.py": {"summarize"},
    "README.md": set(),
}
"""Files with the stages that an edit of them runs again."""

LEFTOVERS = (
    "distillation/models/.classifier.py.swp",
    "distillation/models/.classifier.py.swo",
    "distillation/base/params.py~",
    "distillation/report/.#page.py",
    "distillation/training/.DS_Store",
    "distillation/runs/__pycache__/seeds.cpython-311.pyc",
    "distillation/export/.ipynb_checkpoints/card-checkpoint.py",
)
"""What editors, notebooks and python leave among the code."""

PARAMETERS = [
    ("alpha", 0.7, DISTILLED),
    ("feature_weight", 2.5, {"distill_exp2", "distill_exp3"}),
    ("method_weights.dkd", 2.5, {DKD}),
    ("method_weights.similarity", 2.5, set()),
    ("methods", [], {"check_inputs", "export_student"}),
    ("methods", ["dist", "dkd"], {"check_inputs", "distill@dist", "export_student"}),
    ("export_method", "exp1", {"export_student"}),
    ("temperature", 2.0, DISTILLED),
    ("label_weight", 0.3, DISTILLED),
    ("standardize_logits", True, DISTILLED),
    ("learning_rate", 1e-4, STUDENTS),
    ("patience_epochs", 1, STUDENTS),
    ("control_epochs", [3, 4], {"check_inputs", "train_control_for@4"}),
    ("ema_decay", 0.9, STUDENTS),
    ("label_smoothing", 0.1, STUDENTS),
    ("epochs", 0, {"check_inputs", *STUDENTS} - {LENGTH}),
    ("seeds", [0, 1], {"eval_baseline", *STUDENTS}),
    ("seed", 1, {"prepare_data", "train_teacher"}),
    ("num_views", 3, {"teacher_targets", *STUDENTS}),
    ("use_unlabeled", True, {"teacher_targets", *STUDENTS}),
    ("teacher_cache_gb", 0.5, {"teacher_targets"}),
    ("batch_size", 64, {"check_inputs", *STUDENTS}),
    ("optimizer", "sgd", {"check_inputs", *STUDENTS}),
    ("optimizer_options", {"momentum": 0.9}, {"check_inputs", *STUDENTS}),
    ("teacher_optimizer", "sgd", {"check_inputs", "train_teacher"}),
    (
        "student",
        "test_efficientnet",
        {"check_inputs", "eval_baseline", *STUDENTS, "export_student"},
    ),
    ("student_pretrained", True, {"check_inputs", "eval_baseline", *STUDENTS}),
    ("student_stem_stride", 2, {"check_inputs", "eval_baseline", *STUDENTS, "export_student"}),
    (
        "teacher_stem_stride",
        2,
        {
            "check_inputs",
            "train_teacher",
            "eval_baseline",
            "teacher_targets",
            *DISTILLED,
            "export_student",
        },
    ),
    ("teacher_epochs", 3, {"check_inputs", "train_teacher", "eval_baseline"}),
    ("teacher_checkpoint", "weights.pt", {"check_inputs", "train_teacher", "eval_baseline"}),
    ("allow_poor_teacher", True, {"train_teacher"}),
    ("labeled_fraction", 0.5, {"prepare_data"}),
]
"""Parameters, other values of them, and the stages that run again beside `summarize`."""


def test_every_path_of_the_table_exists(repository):
    assert [path for path in EDITS if not (repository / path).is_file()] == []


@pytest.mark.parametrize("path", EDITS)
def test_an_edit_reruns_the_stages_that_use_the_file(path, resolved, stages):
    assert resolved.users(path, stages) == EDITS[path]


@pytest.mark.parametrize("path", LEFTOVERS)
def test_what_programs_leave_among_the_code_reruns_nothing(path, resolved, stages):
    assert resolved.users(path, stages) == set()


@pytest.mark.parametrize(("key", "value", "expected"), PARAMETERS)
def test_a_parameter_reruns_the_stages_that_read_it(key, value, expected, resolved, stages, values):
    """And the summary, whose report shows all parameters."""
    after = resolved.stages(with_value(values, key, value))
    assert changed(stages, after) == expected | {"summarize"}


def test_dvc_tells_the_same_of_an_edit(work_tree):
    for path in LEFTOVERS:
        (work_tree.root / path).parent.mkdir(exist_ok=True)
        (work_tree.root / path).write_text("left behind", encoding="utf-8")
    assert work_tree.changed_stages() == set()
    with (work_tree.root / "distillation/losses/dkd.py").open("a", encoding="utf-8") as file:
        file.write("# an edit\n")
    assert work_tree.changed_stages() == {DKD}


@pytest.mark.full
def test_an_edit_that_changes_no_number_runs_what_shows_the_commit_and_no_other_training(work_tree):
    with (work_tree.root / "distillation/losses/dkd.py").open("a", encoding="utf-8") as file:
        file.write("# an edit\n")
    first, *rest = work_tree.ran("repro")
    assert (first, set(rest)) == (DKD, AFTER_TRAINING)
    assert work_tree.changed_stages() == set()


def test_dvc_tells_the_same_of_a_parameter(work_tree):
    params = work_tree.root / "params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    for key, value in (("label_weight", 0.3), ("methods", ["dist", "dkd"])):
        values = with_value(values, key, value)
    params.write_text(yaml.safe_dump(values), encoding="utf-8")
    own = {"check_inputs", "distill@dist"}
    assert work_tree.changed_stages() == DISTILLED | own | AFTER_TRAINING
