"""Decoupled knowledge distillation: the target class apart from the others."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from distillation.losses.dkd import DecoupledLogitLoss, build_logit_loss
from distillation.losses.logits import kl_divergence

LN2 = math.log(2.0)


def normal(*shape, seed, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loss_of(student, teacher, labels, *, temperature=1.0, beta=1.0):
    loss = DecoupledLogitLoss(temperature=temperature, beta=beta)
    return loss(student, teacher, torch.as_tensor(labels))


def paper_loss(student, teacher, labels, *, temperature, beta):
    """Zhao et al. (2022), equations 1 to 7, sample by sample in the probabilities themselves."""
    total = 0.0
    for z_student, z_teacher, target in zip(student, teacher, labels, strict=True):
        p_student, p_teacher = (
            np.exp(z / temperature) / np.exp(z / temperature).sum() for z in (z_student, z_teacher)
        )
        t_student, t_teacher = p_student[target], p_teacher[target]
        tckd = t_teacher * np.log(t_teacher / t_student)
        tckd += (1 - t_teacher) * np.log((1 - t_teacher) / (1 - t_student))
        others = [i for i in range(len(z_student)) if i != target]
        hat_student, hat_teacher = p_student / (1 - t_student), p_teacher / (1 - t_teacher)
        nckd = sum(hat_teacher[i] * np.log(hat_teacher[i] / hat_student[i]) for i in others)
        total += tckd + beta * nckd
    return temperature**2 * total / len(labels)


def published_terms(student, teacher, target, temperature):
    """TCKD and NCKD as the paper's code, mdistiller, has them: 1000 stands for infinity."""
    mask = F.one_hot(target, student.shape[1])

    def binary(logits):
        probs = F.softmax(logits / temperature, dim=1)
        return torch.stack([(probs * mask).sum(1), (probs * (1 - mask)).sum(1)], dim=1)

    tckd = F.kl_div(binary(student).log(), binary(teacher), reduction="batchmean")
    nckd = F.kl_div(
        F.log_softmax(student / temperature - 1000.0 * mask, dim=1),
        F.softmax(teacher / temperature - 1000.0 * mask, dim=1),
        reduction="batchmean",
    )
    return temperature**2 * tckd, temperature**2 * nckd


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("beta", [0.0, 1.0, 8.0])
def test_value_by_hand(temperature, beta):
    # Teacher (1/2, 1/4, 1/4), student (1/4, 1/2, 1/4), the target first: (1/2, 1/2) against
    # (1/4, 3/4), and among the others (1/2, 1/2) against (2/3, 1/3).
    teacher = temperature * torch.tensor([[LN2, 0.0, 0.0]], dtype=torch.float64)
    student = temperature * torch.tensor([[0.0, LN2, 0.0]], dtype=torch.float64)
    target_term = 0.5 * math.log(2.0) + 0.5 * math.log(2 / 3)
    other_term = 0.5 * math.log(3 / 4) + 0.5 * math.log(3 / 2)
    found = loss_of(student, teacher, [0], temperature=temperature, beta=beta)
    assert found.shape == ()
    expected = temperature**2 * (target_term + beta * other_term)
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_agrees_with_the_papers_equations(temperature):
    student, teacher = normal(7, 6, seed=0, scale=2), normal(7, 6, seed=1, scale=2)
    labels = [0, 5, 2, 2, 3, 1, 4]
    expected = paper_loss(student.numpy(), teacher.numpy(), labels, temperature=temperature, beta=8)
    found = loss_of(student, teacher, labels, temperature=temperature, beta=8.0)
    assert expected > 0.5
    assert found.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_published_code_gives_the_same_for_moderate_logits(temperature):
    student, teacher = normal(5, 6, seed=2).requires_grad_(), normal(5, 6, seed=3)
    labels = torch.tensor([0, 5, 2, 2, 3])
    tckd, nckd = published_terms(student, teacher, labels, temperature)
    (theirs,) = torch.autograd.grad(tckd + 8.0 * nckd, student)
    found = loss_of(student, teacher, labels, temperature=temperature, beta=8.0)
    (ours,) = torch.autograd.grad(found, student)
    assert found.item() == pytest.approx((tckd + 8.0 * nckd).item(), rel=1e-10)
    assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_weighted_by_the_others_probability_it_is_the_plain_divergence(temperature, label):
    """KL = TCKD + (1 − p_t) NCKD: the paper's equation 4."""
    student, teacher = normal(1, 4, seed=4, scale=3), normal(1, 4, seed=5, scale=3)
    beta = 1.0 - F.softmax(teacher / temperature, dim=1)[0, label].item()
    found = loss_of(student, teacher, [label], temperature=temperature, beta=beta)
    expected = kl_divergence(student, teacher, temperature=temperature).item()
    assert expected > 0.01
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_each_term_sees_its_own_part_alone():
    student, teacher = normal(3, 5, seed=6), normal(3, 5, seed=7)
    others_turned = student[:, [0, 2, 3, 4, 1]]
    raised = student + torch.tensor([5.0, 0, 0, 0, 0], dtype=torch.float64)

    def terms(logits):
        target_term = loss_of(logits, teacher, [0, 0, 0], beta=0.0).item()
        return target_term, loss_of(logits, teacher, [0, 0, 0], beta=1.0).item() - target_term

    target_term, other_term = terms(student)
    assert terms(others_turned)[0] == pytest.approx(target_term, rel=1e-10)
    assert terms(others_turned)[1] != pytest.approx(other_term, rel=0.01)
    assert terms(raised)[1] == pytest.approx(other_term, rel=1e-10)
    assert terms(raised)[0] != pytest.approx(target_term, rel=0.01)


def test_two_classes_have_no_others_to_rank():
    student, teacher = normal(4, 2, seed=8), normal(4, 2, seed=9)
    found = loss_of(student, teacher, [0, 1, 1, 0], temperature=2.0, beta=1e6)
    expected = kl_divergence(student, teacher, temperature=2.0).item()
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_without_a_label_the_teachers_prediction_is_the_target():
    student, teacher = normal(4, 5, seed=10), normal(4, 5, seed=11)
    predicted = teacher.argmax(dim=1)
    labels = (predicted + 1) % 5  # Wrong where they are given.
    mixed = torch.where(torch.tensor([True, False, True, False]), labels, -1)
    filled = torch.where(mixed < 0, predicted, mixed)
    found = loss_of(student, teacher, mixed, temperature=2.0, beta=8.0).item()
    assert found == loss_of(student, teacher, filled, temperature=2.0, beta=8.0).item()
    for others in (labels, predicted):
        other = loss_of(student, teacher, others, temperature=2.0, beta=8.0).item()
        assert found != pytest.approx(other, rel=0.01)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_matches_finite_differences(temperature):
    student, teacher = normal(3, 4, seed=12).requires_grad_(), normal(3, 4, seed=13)
    assert torch.autograd.gradcheck(
        lambda z: loss_of(z, teacher, [0, -1, 3], temperature=temperature, beta=8.0), (student,)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_identical_logits_give_exactly_zero(dtype):
    logits = normal(6, 10, seed=14, scale=5).to(dtype).requires_grad_()
    found = loss_of(logits, logits.detach(), [0, 1, -1, 9, 4, 4], temperature=4.0, beta=8.0)
    found.backward()
    assert found.item() == 0.0
    assert logits.grad.abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_extreme_logits_stay_finite(dtype, temperature):
    student = torch.tensor([[1e3, -1e3, 0.0]], dtype=dtype).requires_grad_()
    teacher = torch.tensor([[-1e3, 1e3, 0.0]], dtype=dtype)
    found = loss_of(student, teacher, [0], temperature=temperature, beta=8.0)
    found.backward()
    # The teacher is certain of "not 0", by the student 1000 less likely than "0", and of 1 among
    # the others, 1000 less likely than 2.
    assert found.item() == pytest.approx(temperature * (1e3 + 8 * 1e3), rel=1e-4)
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() > 0


def test_the_logarithm_of_a_softmax_is_infinite_there():
    student = torch.tensor([[1e3, -1e3, 0.0]], requires_grad=True)
    tckd, _ = published_terms(student, torch.tensor([[-1e3, 1e3, 0.0]]), torch.tensor([0]), 1.0)
    tckd.backward()
    assert tckd.item() == math.inf
    assert not torch.isfinite(student.grad).all()


def test_a_target_leading_by_1000_is_still_no_other_class():
    # Among the others the student is certain of the second by 2, the teacher of the third:
    # with p = 1 / (1 + e⁻²), Σ p (log p − log q) = 2 (2 p − 1) = 2 tanh 1.
    student = torch.tensor([[1e3, 2.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[1e3, 0.0, 2.0]], dtype=torch.float64)
    expected = 2.0 * math.tanh(1.0)
    assert loss_of(student, teacher, [0]).item() == pytest.approx(expected, rel=1e-12)
    # Less 1000, the published code's target is one of the others, as likely as the third.
    _, published = published_terms(student, teacher, torch.tensor([0]), 1.0)
    assert published.item() < 0.95 * expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = normal(4, 10, seed=15).to(dtype), normal(4, 10, seed=16).to(dtype)
    labels, values = [3, -1, 0, 9], {"temperature": 4.0, "beta": 8.0}
    expected = loss_of(student.float(), teacher.float(), labels, **values)
    for pair in ((student, teacher), (student.float(), teacher), (student, teacher.float())):
        found = loss_of(*pair, labels, **values)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss_of(student, teacher, labels, **values), expected)


def test_a_batch_is_the_mean_of_its_samples_in_any_order():
    student, teacher = normal(3, 6, seed=17), normal(3, 6, seed=18)
    labels = torch.tensor([2, -1, 5])
    rows = [slice(i, i + 1) for i in range(3)]
    singles = [loss_of(student[i], teacher[i], labels[i], beta=8.0).item() for i in rows]
    assert singles[0] != pytest.approx(singles[1], rel=0.01)
    both = loss_of(student, teacher, labels, beta=8.0).item()
    assert both == pytest.approx(sum(singles) / 3, rel=1e-12)
    turned = loss_of(student.flip(0), teacher.flip(0), labels.flip(0), beta=8.0).item()
    assert turned == pytest.approx(both, rel=1e-12)


def test_the_methods_weight_is_beta():
    built = build_logit_loss(temperature=4.0, weight=8.0)
    assert (built.temperature, built.beta) == (4.0, 8.0)
    assert list(built.parameters()) == []


def test_no_shape_depends_on_the_values():
    """Else the compiled step breaks in pieces, and a GPU is waited for in every step."""
    logits = torch.empty(4, 5, device="meta")
    labels = torch.empty(4, dtype=torch.int64, device="meta")
    assert loss_of(logits, logits, labels).shape == ()
