"""Experiment 2's feature loss: the cosine distance of globally pooled features.

Shapes: B batch, Cs and Ct channels, hs × ws and ht × wt sizes of student's and teacher's maps.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = "pooled"
"""What of the teacher's feature map the loss needs: its mean over the positions is enough."""


class CosineFeatureLoss(nn.Module):
    """1 − cos of the pooled features, cut to the first min(Cs, Ct) channels.

    It has no parameters: the channels are compared in the order the two architectures happen to
    have them, as the experiment is defined.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.num_channels = min(student_channels, teacher_channels)

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Return the mean distance over the batch, a scalar in [0, 2].

        Args:
            student_features: (B, Cs, hs, ws).
            teacher_features: (B, Ct, ht, wt).
        """
        student = _pool(student_features)[:, : self.num_channels]
        teacher = _pool(teacher_features)[:, : self.num_channels]
        return (1.0 - F.cosine_similarity(student, teacher, dim=1)).mean()


def build_feature_loss(student_channels: int, teacher_channels: int) -> nn.Module:
    """Build the loss for two models' numbers of channels."""
    return CosineFeatureLoss(student_channels, teacher_channels)


def _pool(features: Tensor) -> Tensor:
    if features.element_size() < 4:
        features = features.float()
    return F.adaptive_avg_pool2d(features, 1).flatten(1)
