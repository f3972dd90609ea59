"""The optimizer and the learning-rate schedule of every method."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def make_optimizer(
    modules: Iterable[nn.Module], *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """Make a fused AdamW over all trainable parameters of some modules.

    Biases and the scales of normalisation layers (one dimension) are not decayed.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, *, total_steps: int, warmup_fraction: float
) -> LambdaLR:
    """Make a schedule that is stepped once after every optimizer step."""
    return LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(
            step, total_steps=total_steps, warmup_fraction=warmup_fraction
        ),
    )


def learning_rate_factor(step: int, *, total_steps: int, warmup_fraction: float) -> float:
    """Give the share of the peak learning rate at a step: linear warm-up, then half a cosine.

    Args:
        step: 0-based index of the step about to be taken.
        total_steps: steps of the whole training.
        warmup_fraction: share of the steps in which the rate rises; 0 starts at the peak.

    Returns:
        A factor in (0, 1] for every step of the training, 0 behind its end.
    """
    warmup_steps = round(warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if step >= total_steps:
        return 0.0
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * progress))
