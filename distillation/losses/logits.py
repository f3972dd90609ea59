"""Distillation of logits: the Kullback–Leibler divergence of softened distributions.

Shapes: B batch, K classes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of the distributions softened by T, averaged over the batch.

    With p = softmax(teacher_logits / T) and q = softmax(student_logits / T) this is
    T² / B · Σ_b Σ_k p_bk (log p_bk − log q_bk). The factor T² keeps the size of the gradients
    comparable across temperatures (Hinton, Vinyals and Dean, 2015, section 2).

    Args:
        student_logits: (B, K), any floating dtype; computed in float32 or wider.
        teacher_logits: (B, K).
        temperature: T > 0.

    Returns:
        A scalar ≥ 0, in nats; 0 when the logits agree up to a constant per sample.
    """
    student_log_probs = F.log_softmax(_widen(student_logits) / temperature, dim=1)
    teacher_log_probs = F.log_softmax(_widen(teacher_logits) / temperature, dim=1)
    divergence = F.kl_div(
        student_log_probs, teacher_log_probs, reduction="batchmean", log_target=True
    )
    return temperature**2 * divergence


def _widen(logits: Tensor) -> Tensor:
    """Bring half precision to float32; leave float32 and float64 as they are."""
    return logits.float() if logits.element_size() < 4 else logits
