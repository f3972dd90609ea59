"""The exponential moving average of a model's weights, which may be measured in their place."""

from __future__ import annotations

from typing import Any

from timm.utils import ModelEmaV3
from torch import Tensor

from distillation.models.classifier import Classifier


class _Average(ModelEmaV3):
    """Takes a tensor in once: a module in several places, as in CoaT, has several names for it."""

    def _foreach_lerp_(
        self, ema_values: list[Tensor], model_values: list[Tensor], weight: float
    ) -> None:
        pairs = zip(ema_values, model_values, strict=True)
        once = {(own.data_ptr(), own.shape): (own, new) for own, new in pairs}
        own_values, new_values = map(list, zip(*once.values(), strict=True))
        super()._foreach_lerp_(own_values, new_values, weight)


class WeightAverage:
    """The moving average of a classifier's weights and statistics, one update a step.

    The decay starts at 0 and rises with the number of steps s as 1 − s^(−2/3) until it reaches its
    final value: after 1,400 steps 0.992, so that a short training is not averaged with its start.
    """

    def __init__(self, model: Classifier, *, decay: float) -> None:
        self._average = _Average(model, decay=decay, use_warmup=True)
        self._num_updates = 0

    @property
    def model(self) -> Classifier:
        """Return the classifier with the averaged weights."""
        return self._average.module

    def update(self, model: Classifier) -> None:
        """Take in the weights after a step."""
        self._num_updates += 1
        self._average.update(model, step=self._num_updates)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {"model": self.model.state_dict(), "num_updates": self._num_updates}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo `state`."""
        weights: dict[str, Tensor] = state["model"]
        self.model.load_state_dict(weights)
        self._num_updates = state["num_updates"]
