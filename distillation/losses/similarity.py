"""Similarity-preserving distillation (Tung and Mori, 2019).

Images that look alike to the teacher should look alike to the student. Only similarities within a
batch are compared, so the two may have any numbers of channels and positions.

Shapes: B batch, Cs and Ct channels, hs × ws and ht × wt sizes of student's and teacher's maps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillation.losses.logits import widen

FEATURES = "map"
"""What of the teacher's feature map the loss needs: all of it."""

MIN_BATCH_SIZE = 2
WHY_MIN_BATCH_SIZE = "are no two images to compare, so that its term is always 0"


class SimilarityFeatureLoss(nn.Module):
    """1 / B² · ‖G_student − G_teacher‖², of the batch's similarity matrices (equations 1 to 4)."""

    couples_samples = True  # every two of a batch

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Return a scalar ≥ 0.

        G is Q Qᵀ with every row divided by its Euclidean length, Q the features of each image in
        one row.

        Args:
            student_features: (B, Cs, hs, ws).
            teacher_features: (B, Ct, ht, wt).
        """
        difference = _similarities(student_features) - _similarities(teacher_features)
        return difference.square().mean()


def build_feature_loss(student_channels: int, teacher_channels: int) -> nn.Module:
    """Build the loss; it does not depend on the models."""
    return SimilarityFeatureLoss()


def _similarities(features: Tensor) -> Tensor:
    """Return the row-normalised similarity matrix (B, B) of features (B, C, h, w)."""
    rows = widen(features).flatten(1)
    # Autocast would multiply in half precision, whose rounding is as large as the differences.
    with torch.autocast(rows.device.type, enabled=False):
        return F.normalize(rows @ rows.T, dim=1)
