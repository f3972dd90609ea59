"""Where a model's last features stand among its normalisations, found by running it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distillation.models.classifier import Classifier


def describe_norm(model: Classifier, image_size: int) -> str:
    """Say whether the last features come before or after the last normalisation.

    Args:
        model: it stays as it is.
        image_size: H = W in pixels.
    """
    net: Any = model.net
    called: list[nn.Module] = []
    leaves = [m for m in net.modules() if not any(True for _ in m.children()) or _is_norm(m)]
    hooks = [
        leaf.register_forward_hook(lambda module, *_: called.append(module)) for leaf in leaves
    ]
    model.eval()
    try:
        with torch.no_grad():
            raw = net.forward_features(torch.zeros(1, 3, image_size, image_size))
            num_before_head = len(called)
            net.forward_head(raw)
    finally:
        for hook in hooks:
            hook.remove()
    if any(_is_norm(module) for module in called[num_before_head:]):
        return "before the head's norm"
    real = [m for m in called[:num_before_head] if not isinstance(m, (nn.Identity, nn.Dropout))]
    return "after the last norm" if _is_norm(real[-1]) else "after the last block"


def _is_norm(module: nn.Module) -> bool:
    return (
        "norm" in type(module).__name__.lower()
        and not isinstance(module, nn.Conv2d)
        and bool(list(module.parameters(recurse=False)))
    )
