"""What is recorded of one training."""

import numpy as np
import pytest
import torch

from distillation.runs.measured import SeedResult
from distillation.runs.predictions import TOP5_CLASSES, top5_accuracy
from distillation.training.evaluation import Metrics


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
