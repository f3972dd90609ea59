"""While training, numbers that float32 holds with fewer digits count as 0, in every thread."""

import subprocess
import sys

import pytest
import torch

from distillation.base.params import make_params
from distillation.base.workspace import Workspace
from distillation.training.denormals import flushed_denormals
from distillation.training.loop import fit
from tests.helpers.trainings import Tiny

DENORMAL = 1e-40

needs_flushing = pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this CPU knows no such setting"
)


def halves(number=1):
    return torch.full((number,), DENORMAL) * 0.5


@needs_flushing
def test_they_are_0_within_and_numbers_afterwards():
    assert halves() != 0
    with flushed_denormals():
        assert halves() == 0
    assert halves() != 0
    with pytest.raises(KeyError), flushed_denormals():
        raise KeyError
    assert halves() != 0


THREADS = """
import torch
from distillation.training.denormals import flushed_denormals, set_threads
set_threads(4)
torch.ones(2**21).exp()  # as the untrained student is measured before
def left():
    return int((torch.full((2**21,), 1e-40) * 0.5 != 0).sum())
with flushed_denormals():
    for width in (1, 3, 64, 2, 128):
        left_before = left()
        torch.nn.Conv2d(3, width, 3)(torch.ones(5, 3, 40, 40)).sum().backward()
        print(left_before + left())
"""


@needs_flushing
def test_all_threads_count_them_as_0(repository):
    done = subprocess.run(
        [sys.executable, "-c", THREADS], cwd=repository, capture_output=True, text=True, check=True
    )
    assert done.stdout == 5 * "0\n"


@needs_flushing
def test_a_training_flushes_its_steps_and_nothing_else(tiny_values, tmp_path):
    workspace = Workspace(root=tmp_path, device_name="cpu")
    setup, make_training = Tiny()(make_params(tiny_values), workspace)
    in_steps, after_epochs = [], []
    fit(
        make_training(0),
        runtime=setup.runtime,
        on_step=lambda: in_steps.append(float(halves())),
        on_epoch=lambda record: after_epochs.append(float(halves())),
    )
    assert set(in_steps) == {0.0}
    assert len(after_epochs) == 2
    assert 0.0 not in after_epochs
