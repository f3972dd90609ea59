"""The labels of a batch, mixed or not, and their cross-entropy.

Shapes: B batch, K classes.
"""

from __future__ import annotations

import functools
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
    logits: Tensor,
    labels: Tensor | MixedLabels,
    *,
    labeled_share: float = 1.0,
    smoothing: float = 0.0,
) -> Tensor:
    """Return the mean cross-entropy of the labelled samples.

    A mixed view's is share · CE(own) + (1 − share) · CE(partner), without the part that has no
    label. With some samples unlabelled, a batch's sum is divided by how many labelled ones it has
    on average: every labelled sample weighs the same, however many others its batch happens to
    have. That holds for mixed views too: partners are drawn evenly from the same samples.

    Args:
        logits: (B, K) in float32.
        labels: (B,) int64, or those of mixed views.
        labeled_share: share of the samples trained on that have a label; at 1.0 none may lack it.
        smoothing: share of a label that all K classes get evenly (Szegedy et al., 2016).
    """
    cross_entropy = functools.partial(F.cross_entropy, label_smoothing=smoothing)
    if labeled_share < 1.0:  # where all have a label, one that is missing is an error
        cross_entropy = functools.partial(cross_entropy, ignore_index=UNLABELED)
    if isinstance(labels, MixedLabels):
        own, partner = (
            cross_entropy(logits, one, reduction="none") for one in (labels.own, labels.partner)
        )
        terms = labels.own_share * own + (1.0 - labels.own_share) * partner
        return terms.sum() / (labeled_share * len(logits))
    if labeled_share == 1.0:
        return cross_entropy(logits, labels)
    return cross_entropy(logits, labels, reduction="sum") / (labeled_share * len(labels))
