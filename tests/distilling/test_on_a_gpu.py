"""On a GPU trainings do what they do on the CPU: eager, compiled, in bf16, stored, gone on with."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from distillation.base.methods import CONTROL, EXPERIMENTS, further_methods
from distillation.base.params import make_params
from distillation.data.prepared import PreparedData
from distillation.distilling.objective import build_objective
from distillation.distilling.storing import store_teacher_outputs
from distillation.distilling.teacher_outputs import (
    fingerprint_teacher_outputs,
    load_teacher_outputs,
)
from distillation.models.creation import create_classifier
from distillation.training.checkpoints import TrainingStates
from distillation.training.guard import NonFiniteLossError
from distillation.training.loop import fit
from distillation.training.runtime import CPU, Runtime
from distillation.training.setup import to_device
from distillation.training.supervised import LabelObjective
from distillation.training.values import Recipe, Training
from distillation.training.views import ViewSettings
from tests.helpers.thirds import NUM_CLASSES, SIZE, make_split

pytestmark = pytest.mark.gpu

GPU = Runtime(device=torch.device("cuda"))
METHODS = (CONTROL, *EXPERIMENTS, *further_methods())
VIEWS = ViewSettings(view_seed=5, crop_padding=2, horizontal_flip=True)
RECIPE = Recipe(
    epochs=2,
    batch_size=16,
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup_fraction=0.2,
    seed=1,
    views=VIEWS,
    num_views=2,
)


DATA = PreparedData(
    train=make_split(64, seed=1),
    validation=make_split(12, seed=2),
    test=make_split(6, seed=3),
    labeled=np.arange(64),
    class_names=("a", "b", "c"),
    source="noise",
    view_seed=VIEWS.view_seed,
    provenance={},
)


def make_model(name):
    return create_classifier(name, num_classes=NUM_CLASSES, image_size=SIZE, seed=0, stem_stride=1)


@pytest.fixture(scope="module")
def teacher():
    """Return a teacher whose running statistics are those of the images, on the CPU."""
    teacher = make_model("test_efficientnet")
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average over all batches, here of one
    with torch.no_grad():
        teacher.train()(torch.tensor(DATA.train.images).permute(0, 3, 1, 2))
    return teacher.eval()


@pytest.fixture
def train(teacher, tiny_values, monkeypatch):
    """Train a student by a method on a runtime; returns the terms of its epochs."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    def run(method, runtime, *, stored=None, recipe=RECIPE, **options):
        sets = to_device(DATA, runtime.device)
        student = make_model("test_resnet").to(runtime.device)
        objective, outputs = LabelObjective(), None
        if method != CONTROL:
            values = {"epochs": recipe.epochs, "batch_size": recipe.batch_size}
            objective = build_objective(
                method,
                make_params({**tiny_values, **values}),
                student=student,
                teacher=copy.deepcopy(teacher).to(runtime.device),
                train=sets.train,
                image_size=SIZE,
                seed=1,
                teacher_shape=None if stored is None else stored.plan.feature_shape,
            )
            outputs = None if stored is None else stored.select(objective.features)
        training = Training(
            name=method,
            model=student,
            objective=objective,
            train=dataclasses.replace(sets.train, teacher_outputs=outputs),
            validation=sets.validation,
            recipe=recipe,
        )
        return [record.terms for record in fit(training, runtime=runtime, **options).history]

    return run


def assert_close(found, expected, *, rel):
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=rel, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_training_has_the_terms_it_has_on_the_cpu(train, method):
    assert_close(train(method, GPU), train(method, CPU), rel=1e-2)


@pytest.mark.parametrize("method", ["exp1", "exp2", "exp3"])
def test_stored_outputs_do_what_a_live_teacher_does(train, teacher, tmp_path, method):
    on_gpu = copy.deepcopy(teacher).to(GPU.device)
    samples = to_device(DATA, GPU.device).train
    shared = {"data": DATA, "views": VIEWS, "num_views": RECIPE.num_views, "runtime": GPU}
    store_teacher_outputs(on_gpu, samples, tmp_path / "targets", cache_gb=1.0, **shared)
    stored = load_teacher_outputs(
        tmp_path / "targets",
        fingerprint=fingerprint_teacher_outputs(on_gpu, **shared),
        train=samples,
        device=GPU.device,
    )
    assert_close(train(method, GPU, stored=stored), train(method, GPU), rel=2e-2)


class InterruptedTrainingError(Exception):
    """The power goes."""


def test_a_training_goes_on_where_it_was(train, tmp_path):
    def states():
        return TrainingStates(tmp_path / "states", stage="x", fingerprint="f" * 64)

    def interrupt(record):
        raise InterruptedTrainingError

    recipe = dataclasses.replace(RECIPE, epochs=3)
    with pytest.raises(InterruptedTrainingError), states() as opened:
        train("exp3", GPU, recipe=recipe, states=opened, on_epoch=interrupt)
    resumed = []
    with states() as opened:
        found = train("exp3", GPU, recipe=recipe, states=opened, on_epoch=resumed.append)
    assert [record.epoch for record in resumed] == [2, 3]
    assert_close(found, train("exp3", GPU, recipe=recipe), rel=1e-2)


def test_a_loss_that_is_not_finite_stops_the_training_and_spares_the_weights():
    calls = iter(range(1, 1000))
    sets = to_device(DATA, GPU.device)
    model = make_model("test_resnet").to(GPU.device)

    class Breaking(LabelObjective):
        def forward(self, *arguments):
            terms = super().forward(*arguments)
            factor = float("nan") if next(calls) == 3 else 1.0
            return {name: value * factor for name, value in terms.items()}

    training = Training(
        name="x",
        model=model,
        objective=Breaking(),
        train=sets.train,
        validation=sets.validation,
        recipe=RECIPE,
    )
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 3"):
        fit(training, runtime=GPU)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("method", "precision", "rel"),
    [("exp3", "fp32", 1e-2), ("exp1", "bf16", 0.1)],
)
def test_compiled_with_graphs_a_training_has_the_same_terms(train, method, precision, rel):
    compiled = dataclasses.replace(GPU, precision=precision, compiles=True)
    assert_close(train(method, compiled), train(method, GPU), rel=rel)
