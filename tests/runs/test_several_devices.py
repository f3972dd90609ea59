"""One training in several processes: the same samples and weights as in one, and one end for all.

Real processes on the CPU, connected by gloo.
"""

import dataclasses
import logging

import pytest
import torch
from safetensors.torch import load

from distillation.base.params import make_params
from distillation.base.workspace import Workspace
from distillation.runs.processes import ProcessPlan
from distillation.runs.side_by_side import run_side_by_side
from distillation.runs.stage_progress import StageProgress
from tests.helpers.trainings import Tiny


def run(tiny, tiny_values, folder, num_devices, *, keeps=False):
    """Train in worker processes, as a stage does; returns what is left of it."""
    workspace = Workspace(
        root=folder, scratch=folder / ".scratch" if keeps else None, device_name="cpu"
    )
    params = make_params(
        {**tiny_values, "epochs": tiny.epochs, "batch_size": tiny.batch_size, "alpha": 0.5}
    )
    plan = ProcessPlan(
        num_processes=1, num_threads=num_devices, devices=((tiny.device,) * num_devices,)
    )
    with StageProgress("x", 1) as progress:
        (left,) = run_side_by_side(
            "x", tiny, params, workspace, {0: "x"}, plan=plan, progress=progress
        )
    return left


def assert_alike(first, second, *, tolerance=1e-5):
    """The weights, the terms and the test logits are alike, and weights have moved."""
    weights, others = load(first.weights), load(second.weights)
    assert weights.keys() == others.keys()
    for key, value in weights.items():
        torch.testing.assert_close(value, others[key], rtol=tolerance, atol=tolerance, msg=key)
    torch.testing.assert_close(
        first.result.logits, second.result.logits, rtol=1e-3, atol=1e-3
    )
    for one, other in zip(first.result.history, second.result.history, strict=True):
        assert one.terms == pytest.approx(other.terms, rel=1e-4, abs=tolerance)
        assert one.validation.acc == other.validation.acc
    assert first.result.after.loss != pytest.approx(first.result.before.loss, abs=1e-3)


CASES = {
    "control": Tiny(),
    "uneven": Tiny(num_samples=50, batch_size=17),
    "mixed": Tiny(num_samples=50, batch_size=17, mixup=1.0, cutmix=1.0),
    "repeated": Tiny(num_samples=30, repeats_to=50, batch_size=17),
    "exp1": Tiny(method="exp1", num_samples=50, batch_size=17, num_unlabeled=20),
    "stored": Tiny(method="exp1", num_samples=50, batch_size=17, is_stored=True, mixup=1.0),
    "exp2": Tiny(method="exp2", num_samples=50, batch_size=17),
    "exp3": Tiny(method="exp3", num_samples=50, batch_size=17, ema_decay=0.9),
}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_to_the_weights_of_one(name, tiny_values, tmp_path):
    one, two = (run(CASES[name], tiny_values, tmp_path / str(n), n) for n in (1, 2))
    assert_alike(one, two)
    assert (one.environment["devices"], two.environment["devices"]) == (1, 2)
