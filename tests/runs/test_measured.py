"""What is recorded of one training."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from distillation.base.params import make_params
from distillation.base.workspace import Workspace
from distillation.runs.calibration import fit_temperature
from distillation.runs.measured import SeedResult, run_training
from distillation.runs.predictions import TOP5_CLASSES, top5_accuracy
from distillation.training.evaluation import Metrics, measure_logits, predict_logits
from tests.helpers.trainings import Tiny


def make_result(num_classes):
    logits = torch.randn(40, num_classes, generator=torch.Generator().manual_seed(0))
    metrics = Metrics(loss=2.0, acc=10.0, f1=0.1)
    return SeedResult(
        seed=0,
        before=metrics,
        after=metrics,
        best=metrics,
        best_epoch=0,
        history=[],
        logits=logits,
        labels=np.arange(40) % num_classes,
        temperature=1.0,
    )


def test_top5_accuracy_is_recorded_with_many_classes_alone():
    many = make_result(TOP5_CLASSES)
    expected = top5_accuracy(many.logits.numpy(), many.labels)
    assert 0 < expected < 100
    assert many.record()["best_top5"] == pytest.approx(expected)
    few = make_result(TOP5_CLASSES - 1).record()
    assert set(many.record()) - set(few) == {"best_top5"}


def test_before_after_and_best_are_of_the_weights_they_say(tiny_values, tmp_path):
    workspace = Workspace(root=tmp_path, scratch=None, device_name="cpu")
    params = make_params({**tiny_values, "epochs": 5})
    setup, make = Tiny(epochs=5, learning_rate=0.05)(params, workspace)
    given, test = make(0), setup.sets.test
    # By wrong labels validation falls while the training succeeds: an early epoch is the best.
    wrong = (given.validation.labels + 1) % 3
    training = dataclasses.replace(
        given, validation=dataclasses.replace(given.validation, labels=wrong)
    )
    states = [copy.deepcopy(training.model.state_dict())]
    result = run_training(
        training,
        test=test,
        runtime=setup.runtime,
        on_epoch=lambda record: states.append(copy.deepcopy(training.model.state_dict())),
    )
    assert 0 < result.best_epoch < len(result.history) == 5

    def predict(state, images):
        training.model.load_state_dict(state)
        return predict_logits(training.model, images, runtime=setup.runtime)

    best = states[result.best_epoch]
    pairs = ((result.before, states[0]), (result.after, states[-1]), (result.best, best))
    for found, state in pairs:
        assert found == measure_logits(predict(state, test.images), test.labels)
    assert result.after != result.best
    assert torch.equal(result.logits, predict(best, test.images))
    on_validation = predict(best, training.validation.images).numpy()
    assert result.temperature == fit_temperature(on_validation, wrong.numpy())
