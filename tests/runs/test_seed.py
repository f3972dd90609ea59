"""What a kept or killed training is recognised by, and when its state is needed no more."""

import dataclasses
import os
from types import SimpleNamespace

import pytest
import timm
import torch

from distillation.base.params import make_params
from distillation.base.workspace import Workspace
from distillation.runs import method as method_module
from distillation.runs.method import run_method
from distillation.runs.seed import _fingerprint
from distillation.training.runtime import Runtime
from tests.helpers.trainings import Tiny


@pytest.fixture
def params(tiny_values):
    return make_params({**tiny_values, "epochs": 2})


def workspace_in(folder):
    return Workspace(root=folder, scratch=folder / ".scratch", device_name="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"data": SimpleNamespace(fingerprint="other")},
        {"runtime": Runtime(device=torch.device("cpu"), precision="bf16")},
        {"runtime": Runtime(device=torch.device("cpu"), compiles=True)},
        {"runtime": Runtime(device=torch.device("meta"))},
    ],
)
def test_a_training_is_known_by_its_data_and_by_how_it_is_computed(params, tmp_path, change):
    setup, make = Tiny()(params, workspace_in(tmp_path))
    first = _fingerprint(make(0), setup)
    assert first == _fingerprint(make(0), setup)
    assert first != _fingerprint(make(0), dataclasses.replace(setup, **change))


def test_a_training_is_known_by_its_recipe_and_code_and_timm(params, tmp_path, monkeypatch):
    setup, make = Tiny()(params, workspace_in(tmp_path))
    training = make(0)
    recipe = dataclasses.replace(training.recipe, learning_rate=0.5)
    changed = [
        dataclasses.replace(training, recipe=recipe),
        dataclasses.replace(training, code=(*training.code, "losses/dkd.py")),
        dataclasses.replace(training, settings={"objective": "other"}),
    ]
    found = {_fingerprint(one, setup) for one in (training, *changed, make(1))}
    monkeypatch.setattr(timm, "__version__", "0")
    found.add(_fingerprint(training, setup))
    assert len(found) == 6


@pytest.mark.parametrize("outlives", [False, True])
def test_a_stage_that_outlives_dvc_leaves_what_the_next_run_takes_up(
    params, tmp_path, monkeypatch, caplog, outlives
):
    """Nobody has noted then that it has ended: DVC removes its files and runs it again."""
    caplog.set_level("INFO")
    workspace = workspace_in(tmp_path)
    with monkeypatch.context() as patch:
        if outlives:
            patch.setattr(method_module, "_PARENT", os.getppid() + 1)
        run_method("x", Tiny(), params, workspace, seeds=[0])
    weights = workspace.weights("x").read_bytes()
    workspace.weights("x").unlink()
    caplog.clear()
    run_method("x", Tiny(), params, workspace, seeds=[0])
    assert ("x epoch 1/2: " in caplog.text) is not outlives
    assert workspace.weights("x").read_bytes() == weights
