"""The cross-entropy of labels, of mixed views too."""

import numpy as np
import pytest
import scipy.special
import torch
from torch.nn import functional as F

from distillation.training.labels import UNLABELED, MixedLabels, label_loss, own_labels

LOGITS = torch.tensor(
    [[1.0, -2.0, 0.5], [0.0, 0.0, 3.0], [-1.0, 4.0, 2.0], [2.5, 2.5, -1.0]], dtype=torch.float64
)
OWN, PARTNER = torch.tensor([0, 2, 1, 0]), torch.tensor([2, 2, 0, 1])
SHARES = torch.tensor([0.5, 0.75, 1.0, 0.625])
LOG_PROBS = scipy.special.log_softmax(LOGITS.numpy(), axis=1)


def mixed(own=OWN, partner=PARTNER, shares=SHARES):
    return MixedLabels(own, partner, shares)


def by_hand(own, partner):
    """The sum over the batch; what has no label counts nothing."""
    total = 0.0
    for row, labels in enumerate(zip(own.tolist(), partner.tolist(), strict=True)):
        share = float(SHARES[row])
        for weight, label in zip((share, 1 - share), labels, strict=True):
            total -= weight * LOG_PROBS[row, label] if label != UNLABELED else 0.0
    return total


def test_mixed_labels_by_hand():
    assert float(label_loss(LOGITS, mixed())) == pytest.approx(by_hand(OWN, PARTNER) / 4)


def test_a_part_without_a_label_is_left_out():
    own, partner = torch.tensor([0, -1, 1, -1]), torch.tensor([-1, 2, 0, -1])
    found = label_loss(LOGITS, mixed(own, partner), labeled_share=0.5)
    assert float(found) == pytest.approx(by_hand(own, partner) / (0.5 * 4))


def test_a_label_that_may_not_be_missing_is_an_error():
    for labels in (mixed(own=OWN - 1), mixed(partner=PARTNER - 1), OWN - 1):
        with pytest.raises(IndexError, match="Target -1 is out of bounds"):
            label_loss(LOGITS, labels)


@pytest.mark.parametrize("labeled_share", [1.0, 0.75])
def test_whole_shares_and_equal_labels_are_plain_cross_entropy(labeled_share):
    plain = label_loss(LOGITS, OWN, labeled_share=labeled_share)
    for labels in (mixed(shares=torch.ones(4)), mixed(partner=OWN)):
        torch.testing.assert_close(label_loss(LOGITS, labels, labeled_share=labeled_share), plain)


def test_mixed_labels_are_soft_targets():
    targets = SHARES[:, None] * F.one_hot(OWN, 3) + (1 - SHARES[:, None]) * F.one_hot(PARTNER, 3)
    expected = F.cross_entropy(LOGITS, targets.double())
    torch.testing.assert_close(label_loss(LOGITS, mixed()), expected)


def test_plain_labels_keep_their_bits():
    logits = LOGITS.float()
    assert torch.equal(label_loss(logits, OWN), F.cross_entropy(logits, OWN))
    some = torch.tensor([0, -1, 1, -1])
    expected = F.cross_entropy(logits, some, ignore_index=-1, reduction="sum") / (0.5 * 4)
    assert torch.equal(label_loss(logits, some, labeled_share=0.5), expected)


def test_each_labelled_sample_weighs_the_same_on_average():
    """Partners drawn from the same samples: the mean over many mixed batches is the plain loss."""
    random = np.random.default_rng(0)
    logits = torch.tensor([[2.0, 0.0]]).expand(40_000, -1)
    labels = torch.tensor(np.where(random.random(40_000) < 0.25, 0, UNLABELED))
    partners = labels[torch.tensor(random.permutation(40_000))]
    shares = torch.tensor(random.uniform(0.5, 1, 40_000)).float()
    found = label_loss(logits, MixedLabels(labels, partners, shares), labeled_share=0.25)
    assert float(found) == pytest.approx(np.log1p(np.exp(-2)), rel=0.02)


def test_the_gradient_is_that_of_the_formula():
    logits = LOGITS.clone().requires_grad_()
    some = mixed(torch.tensor([0, -1, 1, 0]), torch.tensor([-1, 2, 0, 1]), SHARES.double())
    assert torch.autograd.gradcheck(
        lambda values: label_loss(values, some, labeled_share=0.75), (logits,)
    )


def test_the_own_label_is_that_of_the_larger_share():
    assert own_labels(OWN) is OWN
    assert own_labels(mixed()) is OWN


@pytest.mark.parametrize("labeled_share", [1.0, 0.75])
def test_mixed_labels_go_through_the_compiler_in_one_piece(labeled_share):
    compiled = torch.compile(label_loss, backend="eager", fullgraph=True, dynamic=False)
    for labels in (mixed(), OWN):
        expected = label_loss(LOGITS, labels, labeled_share=labeled_share)
        assert torch.equal(compiled(LOGITS, labels, labeled_share=labeled_share), expected)


@pytest.mark.parametrize("labeled_share", [1.0, 0.75])
def test_a_smoothed_label_is_a_soft_target(labeled_share):
    """0.7 of a label stay, 0.3 go to all three classes evenly; 4 views, all or 3 labelled."""
    own = OWN.clone() if labeled_share == 1.0 else torch.tensor([0, 2, -1, 0])
    has_label = (own >= 0).double()[:, None]
    targets = has_label * (0.7 * F.one_hot(own.clamp(min=0), 3) + 0.1)
    expected = -(targets * F.log_softmax(LOGITS, dim=1)).sum() / (labeled_share * 4)
    for labels in (own, mixed(own=own, partner=own)):
        found = label_loss(LOGITS, labels, labeled_share=labeled_share, smoothing=0.3)
        torch.testing.assert_close(found, expected)
