"""A small real data set, and tiny models exported once."""

import dataclasses
from pathlib import Path

import pytest

from distillation.base.params import make_params
from distillation.export.selection import select_method
from distillation.export.student import Teacher, export_student
from distillation.models.creation import create_classifier
from distillation.sources.prepare import prepare

SIZE = 16


def make_record(validation_acc=80.0, *, seed=0, best_acc=70.0):
    return {
        "seed": seed,
        "before_acc": 10.0,
        "after_acc": best_acc - 1.0,
        "before_f1": 0.05,
        "after_f1": 0.6,
        "before_loss": 2.3,
        "after_loss": 0.6,
        "best_acc": best_acc,
        "best_f1": 0.61,
        "best_ece": 0.0512,
        "best_epoch": 2,
        "epochs": 3,
        "validation_acc": validation_acc,
        "teacher_outputs": "stored",
    }


@pytest.fixture
def record():
    return make_record


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("digits") / "prepared"


@pytest.fixture(scope="session")
def digits(committed_values, digits_folder):
    """Return the handwritten digits at 16 × 16 pixels."""
    params = make_params({**committed_values, "dataset": "digits", "image_size": SIZE})
    return prepare(params, digits_folder, raw_directory=Path("nowhere"))


@pytest.fixture(scope="session")
def make_model():
    def build(name="test_resnet", *, seed=0, size=SIZE, **options):
        return create_classifier(name, num_classes=10, image_size=size, seed=seed, **options)

    return build


@dataclasses.dataclass
class Exported:
    student: object
    directory: Path
    deploy: dict
    selection: object
    methods: dict


@pytest.fixture(scope="session")
def exported(digits, make_model, tmp_path_factory):
    """Give a student of random weights, exported beside a teacher."""
    directory = tmp_path_factory.mktemp("student")
    methods = {
        "control": [make_record(79.0, seed=seed, best_acc=68.0 + 0.9 * seed) for seed in (0, 1)],
        "exp1": [make_record(80.0 + seed, seed=seed, best_acc=70.0 + seed) for seed in (0, 1)],
    }
    student, selection = make_model(seed=3), select_method(methods)
    deploy = export_student(
        student,
        directory,
        selection=selection,
        teacher=Teacher(model=make_model("test_efficientnet"), acc=90.0),
        data=digits,
        num_threads=1,
    )
    return Exported(student, directory, deploy, selection, methods)
