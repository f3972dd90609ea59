"""Logits brought to one scale before they are compared, and the plain divergence as a module."""

import math

import pytest
import torch
from torch.nn import functional as F

from distillation.losses.logits import KLLogitLoss, kl_divergence, standardize, widen


def normal(*shape, seed, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def logit_std_loss(temperature, **weights):
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    loss = mid_level.LogitStdKDLoss(
        ".", "output", ".", "output", temperature=temperature, **weights
    )
    return lambda student, teacher, labels=None: loss(
        {".": {"output": student}}, {".": {"output": teacher}}, labels
    )


def divergence(student, teacher, *, temperature):
    return kl_divergence(standardize(student), standardize(teacher), temperature=temperature)


def test_values_by_hand():
    # Mean 5/2, variance (9 + 1 + 1 + 9) / 4 / 4; mean 1, variance (4 + 4 + 0 + 0) / 4.
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0], [3.0, -1.0, 1.0, 1.0]], dtype=torch.float64)
    small, large = math.sqrt(5) / 2 + 1e-7, math.sqrt(2) + 1e-7
    expected = [
        [-1.5 / small, -0.5 / small, 0.5 / small, 1.5 / small],
        [2.0 / large, -2.0 / large, 0.0, 0.0],
    ]
    found = standardize(logits)
    assert found.tolist() == [pytest.approx(row, rel=1e-12, abs=1e-15) for row in expected]


def test_each_sample_has_mean_0_and_deviation_1():
    found = standardize(normal(6, 10, seed=0, scale=7) + 100.0)
    assert found.mean(dim=1).abs().max() < 1e-12
    assert torch.allclose(found.std(dim=1, correction=0), torch.ones(6).double(), atol=1e-6)
    # Over all K classes: over K − 1 the deviation is larger.
    assert (found.std(dim=1) - math.sqrt(10 / 9)).abs().max() < 1e-6


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (5.0, -20.0), (1e3, 1e4)])
def test_scale_and_shift_of_a_sample_do_not_matter(scale, shift):
    logits = normal(4, 6, seed=1)
    moved = standardize(scale * logits + shift)
    assert torch.allclose(moved, standardize(logits), rtol=1e-3, atol=1e-6)
    assert torch.allclose(standardize(-logits), -standardize(logits))
    assert divergence(scale * logits + shift, logits, temperature=2.0).item() < 1e-6
    if shift:
        assert kl_divergence(scale * logits, logits, temperature=2.0).item() > 0.1


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_matches_finite_differences(temperature):
    student, teacher = normal(3, 4, seed=2).requires_grad_(), normal(3, 4, seed=3)
    assert torch.autograd.gradcheck(standardize, (student,))
    assert torch.autograd.gradcheck(
        lambda z: divergence(z, teacher, temperature=temperature), (student,)
    )


def test_the_gradient_neither_shifts_nor_scales_the_logits():
    student, teacher = normal(4, 6, seed=4).requires_grad_(), normal(4, 6, seed=5)
    divergence(student, teacher, temperature=2.0).backward()
    assert student.grad.abs().max() > 1e-3
    assert student.grad.sum(dim=1).abs().max() < 1e-12
    assert (student * student.grad).sum(dim=1).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e3])
def test_equal_logits_give_equal_probabilities_and_finite_gradients(value, dtype):
    student = torch.full((2, 10), value, dtype=dtype).requires_grad_()
    found = standardize(student)
    assert torch.allclose(F.softmax(found, dim=1), torch.full_like(found, 0.1))
    if value == 0.0:
        assert (found == 0).all()
    divergence(student, normal(2, 10, seed=6).to(dtype), temperature=2.0).backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_stay_finite(dtype):
    student = torch.tensor([[1e3, -1e3, 0.0], [-1e3, 1e3, 0.0]], dtype=dtype).requires_grad_()
    teacher = torch.tensor([[-1e3, 1e3, 0.0], [-1e3, 1e3, 0.0]], dtype=dtype)
    found = divergence(student, teacher, temperature=1.0)
    found.backward()
    # ± √(3/2) and 0: in the first sample p and q are each other's mirror image.
    p, q = (math.exp(sign * math.sqrt(1.5)) for sign in (1, -1))
    by_hand = (p - q) / (p + q + 1) * 2 * math.sqrt(1.5) / 2
    assert found.item() == pytest.approx(by_hand, rel=1e-5)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = 300 * normal(4, 10, seed=7).to(dtype)  # 300² is infinite in float16.
    found = standardize(logits)
    assert found.dtype == widen(logits).dtype == torch.float32
    assert torch.equal(found, standardize(logits.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(standardize(logits), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_types_are_left_as_they_are(dtype):
    logits = normal(2, 3, seed=8).to(dtype)
    assert widen(logits) is logits
    assert standardize(logits).dtype == dtype


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_agrees_with_torchdistill_at_another_temperature(temperature):
    """It divides by K − 1 classes as the paper's code does: the same at T √(K / (K − 1))."""
    student, teacher = normal(5, 4, seed=9, scale=3), normal(5, 4, seed=10, scale=9)
    ours_at = temperature * math.sqrt(4 / 3)
    expected = divergence(student, teacher, temperature=ours_at).item() / ours_at**2
    labels = torch.tensor([0, 1, 2, 3, 0])
    cross_entropy = F.cross_entropy(student, labels).item()
    weighted = logit_std_loss(temperature, alpha=0.5, beta=9.0)(student, teacher, labels).item()
    assert expected > 0.05
    assert weighted == pytest.approx(
        0.5 * cross_entropy + 9.0 * temperature**2 * expected, rel=1e-6
    )
    # Where alpha is 0 or labels are missing it leaves out T² and its beta.
    for alpha, given in ((0, labels), (0.5, None)):
        plain = logit_std_loss(temperature, alpha=alpha, beta=9.0)(student, teacher, given)
        assert plain.item() == pytest.approx(expected, rel=1e-6)


def test_torchdistills_default_weight_cannot_be_used():
    with pytest.raises(TypeError, match="unsupported operand"):
        logit_std_loss(2.0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_module_is_the_divergence_and_ignores_the_labels(temperature):
    student, teacher = normal(3, 5, seed=11), normal(3, 5, seed=12)
    loss = KLLogitLoss(temperature=temperature)
    expected = kl_divergence(student, teacher, temperature=temperature)
    assert expected > 0.01
    for labels in ([0, 1, 2], [-1, -1, -1]):
        assert torch.equal(loss(student, teacher, torch.tensor(labels)), expected)
    assert list(loss.parameters()) == []
