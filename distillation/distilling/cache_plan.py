"""What of the teacher's outputs is stored: decided from shapes and parameters alone.

Shapes: V views, M samples, K classes, C channels and h × w size of the teacher's last feature map.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from distillation.models.features import Shape

_BYTES = 2  # of a float16


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachePlan:
    """What of the teacher's outputs is stored; it follows from shapes and parameters alone."""

    num_views: int
    num_samples: int
    num_classes: int
    feature_shape: Shape
    """(C, h, w) of the teacher's last feature map; (C,) where it has pooled features alone, ()
    where it has logits alone."""
    features: str
    """`map`: all of it; `pooled`: its mean over the positions; `none`: nothing."""

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Return the shape (h, w, C) of one stored feature map."""
        channels, *size = self.feature_shape
        height, width = size if self.features == "map" else (1, 1)
        return height, width, channels

    @property
    def num_bytes(self) -> int:
        """Return the size of everything stored."""
        features = 0 if self.features == "none" else int(np.prod(self.stored_shape))
        return self.num_views * self.num_samples * (self.num_classes + features) * _BYTES

    def summary(self) -> dict[str, Any]:
        """Return what a metrics file says of it; the size in bytes."""
        features = {"map": ["feature maps"], "pooled": ["pooled features"], "none": []}
        return {
            "num_views": self.num_views,
            "num_samples": self.num_samples,
            "feature_shape": list(self.feature_shape),
            "stored": ["logits", *features[self.features]],
            "num_bytes": self.num_bytes,
        }


def plan_cache(
    *,
    num_views: int,
    num_samples: int,
    num_classes: int,
    feature_shape: Shape,
    cache_gb: float,
) -> CachePlan:
    """Decide what to store: the whole map if it fits in `cache_gb`, else its mean, else neither.

    Logits are always stored. Features the teacher does not have are not.
    """
    for features in _kinds(feature_shape):
        plan = CachePlan(
            num_views=num_views,
            num_samples=num_samples,
            num_classes=num_classes,
            feature_shape=feature_shape,
            features=features,
        )
        if plan.num_bytes <= round(cache_gb * 1e9):
            break
    return plan


def _kinds(feature_shape: Shape) -> tuple[str, ...]:
    """Return what can be stored of features, the largest first."""
    if not feature_shape:
        return ("none",)
    return ("map", "pooled", "none") if len(feature_shape) == 3 else ("pooled", "none")


def describe_plan(plan: CachePlan, *, cache_gb: float) -> str:
    """Say in a line what is stored and what will be computed live."""
    size = f"{plan.num_bytes / 1e9:.3f} GB of at most {cache_gb:g} GB (teacher_cache_gb)"
    left_out = {
        "map": "",
        "pooled": ", feature maps will be computed live",
        "none": ", features will be computed live",
    }[plan.features]
    kinds = _kinds(plan.feature_shape)
    larger = [dataclasses.replace(plan, features=kind) for kind in kinds]
    larger = larger[: kinds.index(plan.features)][::-1]
    if larger:
        # Rounded up: with this number it is stored.
        numbers = [f"{math.ceil(one.num_bytes / 1e8) / 10:g} for {one.features}" for one in larger]
        left_out += f" in every step (teacher_cache_gb would be {', '.join(numbers)})"
    if plan.features == _kinds(plan.feature_shape)[0]:
        left_out = "" if len(plan.feature_shape) == 3 else ", the teacher has no feature map"
    stored = " and ".join(plan.summary()["stored"])
    what = f"{stored} are stored{left_out}"
    views = "1 view" if plan.num_views == 1 else f"{plan.num_views} views"
    return f"teacher_targets: {views} of {plan.num_samples} images: {what}; {size}"
