"""Devices by name: one that is there, or an error that says what is allowed."""

import pytest
import torch

from distillation.training.device import DeviceError, select_device


@pytest.mark.parametrize(("is_available", "expected"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_cuda_where_there_is_one(monkeypatch, is_available, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    assert select_device("auto") == torch.device(expected)


def test_auto_gives_a_device_that_works():
    assert torch.ones(2, device=select_device("auto")).sum().item() == 2.0


def test_cpu():
    assert select_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpu",
        "CPU",
        "cuda:x",
        "cpu:-1",
        "0",
        "hpu",  # torch knows the name and has no module for it
        "privateuseone",
        "meta",  # there, but its tensors hold nothing
    ],
)
def test_names_that_are_no_device(name):
    with pytest.raises(DeviceError) as caught:
        select_device(name)
    message = str(caught.value)
    assert message.startswith(f"device: got {name!r}, which cannot be used here")
    assert message.endswith("allowed: auto, cpu, cuda, mps")
    assert "\n" not in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:99"])
def test_cuda_where_there_is_none_does_not_fall_back(name):
    with pytest.raises(
        DeviceError, match=rf"device: got '{name}', which cannot be used here \(.+\)"
    ):
        select_device(name)
