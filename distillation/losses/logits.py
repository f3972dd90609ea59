"""Distillation of logits: the Kullback–Leibler divergence of softened distributions.

Shapes: B batch, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_STANDARDIZE_EPSILON = 1e-7


class KLLogitLoss(nn.Module):
    """T² · KL(teacher ‖ student), the logit loss of the three experiments."""

    def __init__(self, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar ≥ 0; the labels (B,) are not used."""
        return kl_divergence(student_logits, teacher_logits, temperature=self.temperature)


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
    student_log_probs = F.log_softmax(widen(student_logits) / temperature, dim=1)
    teacher_log_probs = F.log_softmax(widen(teacher_logits) / temperature, dim=1)
    divergence = F.kl_div(
        student_log_probs, teacher_log_probs, reduction="batchmean", log_target=True
    )
    return temperature**2 * divergence


def standardize(logits: Tensor) -> Tensor:
    """Return each sample's logits mean 0 and standard deviation 1 over the classes.

    z ↦ (z − mean(z)) / (std(z) + 10⁻⁷), the deviation over all K classes: logit standardisation
    (Sun et al., 2024, algorithm 1), applied to student and teacher before the temperature, so
    that a student need not match the size of the teacher's logits. Their published code divides
    by K − 1 instead, which only rescales the temperature by √(K / (K − 1)).

    Args:
        logits: (B, K), any floating dtype; computed in float32 or wider.

    Returns:
        (B, K); a constant where all logits of a sample are equal.
    """
    logits = widen(logits)
    centered = logits - logits.mean(dim=1, keepdim=True)
    # Clamped under the root, whose slope at 0 is infinite.
    variance = centered.square().mean(dim=1, keepdim=True)
    deviation = variance.clamp_min(_STANDARDIZE_EPSILON**2).sqrt()
    return centered / (deviation + _STANDARDIZE_EPSILON)


def widen(values: Tensor) -> Tensor:
    """Bring half precision to float32; leave float32 and float64 as they are."""
    return values.float() if values.element_size() < 4 else values
