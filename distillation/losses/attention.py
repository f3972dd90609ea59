"""Attention transfer (Zagoruyko and Komodakis, 2017), activation-based, on the last feature map.

The student learns where the teacher looks: how much of the activation lies at each position,
whatever the channels. The paper transfers several depths; this project has one map a model, the
output of timm's `forward_features`.

Shapes: B batch, Cs and Ct channels, hs × ws and ht × wt sizes of student's and teacher's maps.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from distillation.losses.logits import widen

FEATURES = "map"
"""What of the teacher's feature map the loss needs: all of it."""

MIN_POSITIONS = 2
"""Positions a map needs: with one all attention is on it, and no weight changes the loss."""


class AttentionFeatureLoss(nn.Module):
    """The squared distance of normalised attention maps."""

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Return the mean over the batch and the positions, a scalar in [0, 2 / (ht · wt)].

        A map is Q = Σ_c A_c² over the channels, pooled to the teacher's size, flattened and
        divided by its Euclidean length (equation 2). As in the paper's code the distance is
        squared and averaged over positions too; the paper writes half its root.

        Args:
            student_features: (B, Cs, hs, ws).
            teacher_features: (B, Ct, ht, wt).
        """
        height, width = teacher_features.shape[-2:]
        student = _attention(student_features, height, width)
        teacher = _attention(teacher_features, height, width)
        return F.mse_loss(student, teacher)


def build_feature_loss(student_channels: int, teacher_channels: int) -> nn.Module:
    """Build the loss; it does not depend on the models."""
    return AttentionFeatureLoss()


def _attention(features: Tensor, height: int, width: int) -> Tensor:
    """Return the normalised attention (B, height · width) of features (B, C, h, w)."""
    features = widen(features)
    # The mean over channels, not the sum: the length is divided out, and large values stay finite.
    attention = F.adaptive_avg_pool2d(features.square().mean(dim=1, keepdim=True), (height, width))
    return F.normalize(attention.flatten(1), dim=1)
