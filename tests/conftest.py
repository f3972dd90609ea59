"""What all tests share: a small, complete set of parameters, one thread, no progress bars."""

import os
from pathlib import Path

# One thread: the models are tiny, and results do not depend on the machine's number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import yaml

torch.set_num_threads(1)

REPOSITORY = Path(__file__).parents[1]

TINY = {
    "dataset": "digits",
    "image_size": 8,
    "teacher": "test_efficientnet",
    "student": "test_resnet",
    "teacher_epochs": 1,
    "teacher_batch_size": 64,
    "epochs": 2,
    "batch_size": 128,
    "seeds": [0],
    "crop_padding": 1,
    "horizontal_flip": False,
}


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def tiny_values() -> dict:
    """Give the committed parameters, with what makes a run take a second."""
    committed = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    return {**committed, **TINY}
