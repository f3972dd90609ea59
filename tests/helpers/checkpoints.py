"""Read checkpoints in tests, and check how they are refused."""

import pytest
import torch

from distillation.models.names import ModelError
from distillation.models.reading import read_checkpoint

KEY = "teacher_checkpoint"


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


def read(path):
    return read_checkpoint(str(path), key=KEY)


def refused(path, match):
    with pytest.raises(ModelError, match=match) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{KEY}: got {str(path)!r}")
    assert "\n" not in message
    assert "\x1b" not in message
    assert "weights_only" not in message
    assert "safe_globals" not in message
    assert "; " in message, "no way out is named"
    return message


def prefixed(prefix):
    return lambda state: {prefix + key: value for key, value in state.items()}


def scaled(weights, factor=0.5):
    return {k: v * factor if v.is_floating_point() else v for k, v in weights.items()}
