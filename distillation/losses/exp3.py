"""Experiment 3's feature loss: regress the teacher's feature map from the student's.

Follows the hints of FitNets (Romero et al., 2015, equation 3) with a 1×1 convolution as the
regressor. The convolution is trained with the student and is no part of it.

Shapes: B batch, Cs and Ct channels, hs × ws and ht × wt sizes of student's and teacher's maps.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = "map"
"""What of the teacher's feature map the loss needs: all of it."""


class RegressorFeatureLoss(nn.Module):
    """Mean squared error after a trainable 1×1 convolution Cs → Ct and adaptive pooling."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.regressor = nn.Conv2d(student_channels, teacher_channels, kernel_size=1)

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Return the mean over batch, channels and positions, a scalar ≥ 0.

        Args:
            student_features: (B, Cs, hs, ws).
            teacher_features: (B, Ct, ht, wt); the student's map is pooled to ht × wt.
        """
        predicted = self.regressor(student_features)
        height, width = teacher_features.shape[-2:]
        predicted = F.adaptive_avg_pool2d(predicted, (height, width))
        if predicted.element_size() < 4:
            predicted, teacher_features = predicted.float(), teacher_features.float()
        return F.mse_loss(predicted, teacher_features)


def build_feature_loss(student_channels: int, teacher_channels: int) -> nn.Module:
    """Build the loss, its regressor freshly initialised, for two models' numbers of channels."""
    return RegressorFeatureLoss(student_channels, teacher_channels)
