"""Decoupled knowledge distillation (Zhao et al., 2022).

The KL divergence of softened distributions is split at the target class: how sure the teacher is
of it (TCKD), and how it ranks the other classes (NCKD). In plain distillation the second is
weighted by 1 − p_target, so that it vanishes where the teacher is sure; here it has a weight of its
own (equations 6 and 7).

Shapes: B batch, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillation.losses.logits import widen

MIN_CLASSES = 3
WHY_MIN_CLASSES = (
    "its second term is always 0, since beside the target there is one class alone, and what is "
    "left is experiment 1"
)


class DecoupledLogitLoss(nn.Module):
    """T² · (TCKD + beta · NCKD)."""

    def __init__(self, *, temperature: float, beta: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.beta = beta

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar ≥ 0.

        TCKD = KL of (p_t, 1 − p_t), NCKD = KL of the distributions over the other K − 1 classes,
        both of the teacher's from the student's at temperature T.

        Args:
            student_logits: (B, K), any floating dtype; computed in float32 or wider.
            teacher_logits: (B, K).
            labels: (B,) int64, the target classes; where one is negative, the sample has no
                label and the teacher's own prediction is the target.
        """
        student = widen(student_logits) / self.temperature
        teacher = widen(teacher_logits) / self.temperature
        target = torch.where(labels >= 0, labels, teacher.argmax(dim=1))
        order = _target_first(target, teacher.shape[1])
        student, teacher = student.gather(1, order), teacher.gather(1, order)
        target_term = _kl(_binary_log_probs(student), _binary_log_probs(teacher))
        other_term = _kl(_other_log_probs(student), _other_log_probs(teacher))
        return self.temperature**2 * (target_term + self.beta * other_term)


def build_logit_loss(*, temperature: float, weight: float) -> nn.Module:
    """Build the loss; the method's weight is beta over alpha of the paper, which has 8 for 1."""
    return DecoupledLogitLoss(temperature=temperature, beta=weight)


def _target_first(target: Tensor, num_classes: int) -> Tensor:
    """Return the classes (B, K) of each sample, its target (B,) first, the others in their order.

    Not a mask: what it picks has a size that a device would have to tell the host.
    """
    others = torch.arange(num_classes - 1, device=target.device)
    others = others + (others >= target[:, None])
    return torch.cat([target[:, None], others], dim=1)


def _binary_log_probs(logits: Tensor) -> Tensor:
    """Return the logarithms (B, 2) of the first class's probability and of all others' together.

    Both come from `logsumexp`: 1 − p rounds to 0 where the target's logit leads by a lot.
    """
    return F.log_softmax(torch.stack([logits[:, 0], logits[:, 1:].logsumexp(dim=1)], dim=1), dim=1)


def _other_log_probs(logits: Tensor) -> Tensor:
    """Return the log-probabilities (B, K − 1) among the classes that are not the first."""
    return F.log_softmax(logits[:, 1:], dim=1)


def _kl(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    return F.kl_div(student_log_probs, teacher_log_probs, reduction="batchmean", log_target=True)
