"""What all tests share: parameters, one thread, the order they run in."""

import os
from pathlib import Path

# What the user's shell says is not for the tests.
os.environ.pop("DISTILLATION_DEVICES", None)
os.environ.pop("DISTILLATION_TRACKERS", None)
os.environ |= {
    # One thread: the models are tiny, and results do not depend on the machine's number of cores.
    "OMP_NUM_THREADS": "1",
    # One process: models train in a second, and others take longer to start. Those that are to
    # have several say so.
    "DISTILLATION_PROCESSES": "1",
    # What is compared bit by bit is compared on one kind of device.
    "DISTILLATION_DEVICE": "cpu",
    "LC_ALL": "C.UTF-8",
    # Servers that tests start are not behind a proxy; what else is not is the machine's to say.
    **{
        name: ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost")))
        for name in ("NO_PROXY", "no_proxy")
    },
}

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


def pytest_collection_modifyitems(config, items):
    """Mark what real dvc commands, exports and a browser make slow, and put it first.

    With two workers, one builds the pipeline while the other runs what is slow without it. What is
    quick comes last, so that both end at the same time.
    """
    for item in items:
        if "faults" in item.path.relative_to(config.rootpath).parts:
            item.add_marker(pytest.mark.faults)
        if {"fresh_work_tree", "exported", "browser"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    items.sort(key=_rank)


def _rank(item):
    if "repro_output" in item.fixturenames:
        return 0
    if "pipeline" in item.fixturenames:
        return 2
    return 1 if item.get_closest_marker("slow") else 3


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def committed_values(repository) -> dict:
    """Return the committed parameters by name."""
    return yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tiny_values(committed_values) -> dict:
    """Return the committed parameters, with what makes a run take a second."""
    return {**committed_values, **TINY}
