"""Stop a training whose loss is no longer finite, before the weights are touched.

The test runs on the device. torch's fused optimizers are told there, through the flag that gradient
scalers use, to leave out their step, that one and all that follow; the host asks later, when it
suits, and still learns which step it was and which terms. Other optimizers know no such flag: the
host asks before each of their steps, and on a GPU waits for the answer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distillation.base.errors import DistillationError

_STEPS_BETWEEN_CHECKS = 100


class NonFiniteLossError(DistillationError):
    """A loss term became infinite or not a number; no step was taken with it."""


class NonFiniteGuard:
    """Watches the terms of every step and holds the optimizer back from the first bad one."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, name: str) -> None:
        """Attach to an optimizer.

        Args:
            optimizer: any; `watch` makes the host wait for a GPU in every step of one that is not
                fused.
            name: what to call the training in the message.
        """
        parameter = optimizer.param_groups[0]["params"][0]
        self._found = torch.zeros((), device=parameter.device)
        heeds_flag = getattr(optimizer, "_step_supports_amp_scaling", False)
        if heeds_flag:  # torch's own that are not fused refuse the flag
            optimizer.found_inf = self._found  # type: ignore[attr-defined]
        self._values: Tensor | None = None  # of the terms at the first bad step
        self._step = torch.zeros((), dtype=torch.int64, device=parameter.device)
        self._terms: list[str] = []
        self._name = name
        # Asking a CPU tensor costs nothing; asking a device makes the host wait.
        may_ask_later = heeds_flag and parameter.device.type != "cpu"
        self._interval = _STEPS_BETWEEN_CHECKS if may_ask_later else 1

    def watch(self, terms: dict[str, Tensor], *, epoch: int, step: int) -> None:
        """Look at the terms of a step, before its backward pass or after.

        Args:
            terms: named scalars; `loss` is the one that is followed.
            epoch: 1-based.
            step: 1-based, within the epoch.

        Raises:
            NonFiniteLossError: this step's loss, or with a fused optimizer on a GPU that of one of
                the last steps, is not finite.
        """
        self._terms = list(terms)
        values = torch.stack([value.detach().float() for value in terms.values()])
        is_bad = ~torch.isfinite(terms["loss"].detach())
        is_first = is_bad & (self._found == 0)
        known = values if self._values is None else self._values
        self._values = torch.where(is_first, values, known)
        self._step.copy_(torch.where(is_first, step, self._step))
        self._found.copy_(torch.maximum(self._found, is_bad.float()))
        if step % self._interval == 0:
            self.check(epoch=epoch)

    def check(self, *, epoch: int) -> None:
        """Ask the device; raises `NonFiniteLossError` when a loss of this epoch was not finite."""
        if not bool(self._found) or self._values is None:
            return
        values = dict(zip(self._terms, self._values.tolist(), strict=True))
        bad = [f"{term} = {value}" for term, value in values.items() if not math.isfinite(value)]
        raise NonFiniteLossError(
            f"{self._name}: the loss is not finite in epoch {epoch}, step {int(self._step)}: "
            + ", ".join(bad)
            + "; a lower learning rate, or less weight on what is not finite, may help"
        )
