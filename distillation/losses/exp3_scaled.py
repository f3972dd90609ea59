"""Experiment 3 with a scale that fits: the same regressor, normalised features, a ramped weight.

The literal experiment's squared error has the size of the teacher's activations, and outweighs
everything else when the weight is 1. Here each position's channels are divided by their Euclidean
length before they are compared, so that the term lies in [0, 4] for every pair of models, and its
weight rises from 0 while the regressor is still random.

Shapes: B batch, Cs and Ct channels, hs × ws and ht × wt sizes of student's and teacher's maps.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from distillation.losses.logits import widen

FEATURES = "map"
"""What of the teacher's feature map the loss needs: all of it."""

RAMP_FRACTION = 0.3
"""Share of the training's steps over which the weight rises linearly from 0."""


class ScaledRegressorFeatureLoss(nn.Module):
    """The squared distance of unit vectors, after a trainable 1×1 convolution Cs → Ct."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.regressor = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Return 2 − 2 cos per position, averaged over batch and positions, a scalar in [0, 4].

        Args:
            student_features: (B, Cs, hs, ws).
            teacher_features: (B, Ct, ht, wt); the student's map is pooled to ht × wt.
        """
        height, width = teacher_features.shape[-2:]
        predicted = F.adaptive_avg_pool2d(self.regressor(student_features), (height, width))
        cosine = F.cosine_similarity(widen(predicted), widen(teacher_features), dim=1)
        return (2.0 - 2.0 * cosine).mean()


def build_feature_loss(student_channels: int, teacher_channels: int) -> nn.Module:
    """Build the loss, its regressor freshly initialised, for two models' numbers of channels."""
    return ScaledRegressorFeatureLoss(student_channels, teacher_channels)
