"""Tensors become float32, and those no model can have are refused by name."""

import pytest
import safetensors.torch
import torch

from tests.helpers.checkpoints import read, refused, same


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_become_float32_and_counters_stay(weights, path, dtype):
    stored = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
    torch.save(stored, path)
    state = read(path).state
    assert {v.dtype for v in state.values()} == {torch.float32, torch.int64}
    assert same(state, {k: v.float() if v.is_floating_point() else v for k, v in stored.items()})


def quantised(weights):
    weight = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    return {**weights, "fc.weight": weight}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (quantised, r"fc\.weight is quantised \(torch\.qint8\); allowed: dense tensors"),
        ({"a": torch.ones(2, 2, dtype=torch.int8)}, r"a is quantised \(torch\.int8\)"),
        ({"a": torch.ones(2).to(torch.float8_e4m3fn)}, r"a is quantised \(torch\.float8_e4m3fn\)"),
        ({"a": torch.eye(2).to_sparse()}, r"a is sparse \(torch\.sparse_coo\)"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, r"a is complex \(torch\.complex64\)"),
        ({"a": torch.ones(2, device="meta")}, r"a is without values \(on the device meta\)"),
        ({"a": torch.ones(2, dtype=torch.int64)}, "in which no tensor is of floating point"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning:torch.*")
def test_tensors_that_no_model_has_are_named(weights, path, content, match):
    torch.save(content(dict(weights)) if callable(content) else content, path)
    refused(path, match)


@pytest.mark.parametrize("key", ["conv1.0.weight", "bn1.running_var", "fc.bias"])
@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (-float("inf"), "Inf")])
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_values_that_are_not_finite_are_named(weights, path, key, value, kind, ending):
    state = {k: v.clone() for k, v in weights.items()}
    state[key].view(-1)[1] = value
    (safetensors.torch.save_file if ending == "safetensors" else torch.save)(state, path)
    size = state[key].numel()
    refused(
        path, rf"in which {key} holds {kind} \(1 of {size} values\); allowed: a checkpoint from"
    )
