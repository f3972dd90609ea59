"""DIST: match relations instead of values (Huang et al., 2022).

A student much smaller than its teacher need not say the same probabilities, only relate them alike:
the correlation over the classes of each sample (inter-class, equation 8) and over the samples of
each class (intra-class, equation 9).

Shapes: B batch, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from distillation.losses.logits import widen

MIN_CLASSES = 3
WHY_MIN_CLASSES = (
    "the correlation over a sample's classes is always 1 or −1, so that its first term has no "
    "gradient"
)
MIN_BATCH_SIZE = 3
WHY_MIN_BATCH_SIZE = (
    "the correlation over a class's samples is a constant, so that its second term has no gradient"
)

_EPSILON = 1e-8


class CorrelationLogitLoss(nn.Module):
    """T² · (inter + intra_weight · intra), each 1 − Pearson's correlation of softened outputs."""

    couples_samples = True  # of a batch, by the correlation over them

    def __init__(self, *, temperature: float, intra_weight: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.intra_weight = intra_weight

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return a scalar ≥ 0: the mean over samples (inter) and over classes (intra).

        The factor T² is the paper's code's. A row without any variance correlates with nothing
        and counts as 1.

        Args:
            student_logits: (B, K), any floating dtype; computed in float32 or wider.
            teacher_logits: (B, K).
            labels: (B,), not used.
        """
        student = F.softmax(widen(student_logits) / self.temperature, dim=1)
        teacher = F.softmax(widen(teacher_logits) / self.temperature, dim=1)
        inter = _one_minus_correlation(student, teacher)
        intra = _one_minus_correlation(student.T, teacher.T)
        return self.temperature**2 * (inter + self.intra_weight * intra)


def build_logit_loss(*, temperature: float, weight: float) -> nn.Module:
    """Build the loss; the method's weight is gamma over beta of the paper, which has 1."""
    return CorrelationLogitLoss(temperature=temperature, intra_weight=weight)


def _one_minus_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 − Pearson's correlation along the last dimension, averaged over the first."""
    student = student - student.mean(dim=1, keepdim=True)
    teacher = teacher - teacher.mean(dim=1, keepdim=True)
    return 1.0 - F.cosine_similarity(student, teacher, dim=1, eps=_EPSILON).mean()
