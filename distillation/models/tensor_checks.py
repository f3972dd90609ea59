"""Whether the tensors of a state dict can be a model's: dense, of floating point, and finite."""

from __future__ import annotations

import torch
from torch import Tensor

from distillation.models.names import ModelError
from distillation.models.weight_files import ALLOWED


def check_tensors(state: dict[str, Tensor], *, got: str) -> dict[str, Tensor]:
    """Return the tensors, those of floating point in float32, if a model can be made of them.

    Raises:
        ModelError: a tensor is quantised, sparse, complex, without values, or not finite.
    """
    checked = {}
    for name, tensor in state.items():
        kind = _unusable(tensor)
        if kind:
            raise ModelError(
                f"{got}, in which {name} is {kind}; allowed: dense tensors of floating point"
            )
        value = tensor.detach()
        if value.is_floating_point():
            value = value.to(torch.float32)
            _check_finite(name, value, got=got)
        checked[name] = value
    if not any(value.is_floating_point() for value in checked.values()):
        raise ModelError(f"{got}, in which no tensor is of floating point; {ALLOWED}")
    return checked


def _unusable(tensor: Tensor) -> str:
    """Return why a tensor cannot be a model's, or nothing."""
    if tensor.is_meta:
        return "without values (on the device meta)"
    if tensor.is_quantized or (tensor.is_floating_point() and tensor.element_size() == 1):
        return f"quantised ({tensor.dtype})"
    if tensor.dtype in (torch.int8, torch.uint8) and tensor.ndim > 1:
        return f"quantised ({tensor.dtype})"
    if tensor.layout != torch.strided or tensor.is_nested:
        return f"sparse ({tensor.layout})"
    if tensor.is_complex():
        return f"complex ({tensor.dtype})"
    return ""


def _check_finite(name: str, tensor: Tensor, *, got: str) -> None:
    if tensor.numel() == 0:
        return
    # NaN comes through both; no copy of the tensor is made.
    extremes = torch.stack(torch.aminmax(tensor))
    if torch.isfinite(extremes).all():
        return
    kind = "NaN" if tensor.isnan().any() else "Inf"
    count = int((~torch.isfinite(tensor)).sum())
    raise ModelError(
        f"{got}, in which {name} holds {kind} ({count} of {tensor.numel()} values); allowed: a "
        "checkpoint from before the training diverged"
    )
