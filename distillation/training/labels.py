"""The labels of a batch, mixed or not, and their cross-entropy.

Shapes: B batch, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

UNLABELED = -1
"""The label of a sample whose label may not be used."""


class MixedLabels(NamedTuple):
    """The labels of views that show two samples each."""

    own: Tensor
    """(B,) int64: of the sample that takes the larger share; `UNLABELED` where it has none."""
    partner: Tensor
    """(B,) int64: of the sample mixed in; `UNLABELED` where it has none."""
    own_share: Tensor
    """(B,) float32 in 0.5 … 1: the sample's share of its view."""


def own_labels(labels: Tensor | MixedLabels) -> Tensor:
    """Return the label (B,) of the sample that a view shows, or shows most of."""
    return labels.own if isinstance(labels, MixedLabels) else labels


def label_loss(
    logits: Tensor, labels: Tensor | MixedLabels, *, labeled_share: float = 1.0
) -> Tensor:
    """Return the mean cross-entropy of the labelled samples, without label smoothing.

    A mixed view's is share · CE(own) + (1 − share) · CE(partner), without the part that has no
    label. With some samples unlabelled, a batch's sum is divided by how many labelled ones it has
    on average: every labelled sample weighs the same, however many others its batch happens to
    have. That holds for mixed views too: partners are drawn evenly from the same samples.

    Args:
        logits: (B, K) in float32.
        labels: (B,) int64, or those of mixed views.
        labeled_share: share of the samples trained on that have a label; at 1.0 none may lack it.
    """
    if isinstance(labels, MixedLabels):
        return _mixed_loss(logits, labels, labeled_share=labeled_share)
    if labeled_share == 1.0:
        return F.cross_entropy(logits, labels)
    total = F.cross_entropy(logits, labels, ignore_index=UNLABELED, reduction="sum")
    return total / (labeled_share * len(labels))


def _mixed_loss(logits: Tensor, labels: MixedLabels, *, labeled_share: float) -> Tensor:
    log_probs = F.log_softmax(logits, dim=1)

    def losses(one: Tensor) -> Tensor:
        if labeled_share == 1.0:
            return F.nll_loss(log_probs, one, reduction="none")
        return F.nll_loss(log_probs, one, ignore_index=UNLABELED, reduction="none")

    own, partner = losses(labels.own), losses(labels.partner)
    terms = labels.own_share * own + (1.0 - labels.own_share) * partner
    return terms.sum() / (labeled_share * len(logits))
