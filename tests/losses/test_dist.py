"""DIST: one minus the correlation over classes and over samples."""

import math

import pytest
import torch
from torch.nn import functional as F

from distillation.losses.dist import CorrelationLogitLoss, build_logit_loss
from distillation.losses.logits import kl_divergence


def normal(*shape, seed, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loss_of(student, teacher, *, temperature=1.0, intra_weight=1.0):
    loss = CorrelationLogitLoss(temperature=temperature, intra_weight=intra_weight)
    return loss(student, teacher, torch.zeros(len(student), dtype=torch.int64))


def logits_of(probabilities, temperature=1.0):
    """Logits whose softmax at this temperature has these rows."""
    return temperature * torch.tensor(probabilities, dtype=torch.float64).log()


def pearson(a, b):
    """Pearson's correlation with the math module alone, as covariance over deviations."""
    n, mean_a, mean_b = len(a), sum(a) / len(a), sum(b) / len(b)
    covariance = sum(x * y for x, y in zip(a, b, strict=True)) / n - mean_a * mean_b
    variances = [sum(x * x for x in v) / n - m * m for v, m in ((a, mean_a), (b, mean_b))]
    return covariance / math.sqrt(variances[0] * variances[1])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("intra_weight", [0.0, 1.0, 2.5])
def test_matches_the_correlations_written_out(temperature, intra_weight):
    student = [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.3, 0.6, 0.1]]
    teacher = [[0.7, 0.2, 0.1], [0.2, 0.2, 0.6], [0.1, 0.3, 0.6], [0.05, 0.9, 0.05]]
    inter = sum(1 - pearson(s, t) for s, t in zip(student, teacher, strict=True)) / 4
    columns = zip(zip(*student, strict=True), zip(*teacher, strict=True), strict=True)
    intra = sum(1 - pearson(s, t) for s, t in columns) / 3
    found = loss_of(
        logits_of(student, temperature),
        logits_of(teacher, temperature),
        temperature=temperature,
        intra_weight=intra_weight,
    )
    assert found.shape == ()
    expected = temperature**2 * (inter + intra_weight * intra)
    assert found.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("teacher", "inter", "intra"),
    [
        # Two values correlate by 1 or −1. The student's first row falls and its second rises.
        ([[0.9, 0.1], [0.2, 0.8]], 0.0, 0.0),
        ([[0.9, 0.1], [0.8, 0.2]], 1.0, 0.0),
        ([[0.8, 0.2], [0.9, 0.1]], 1.0, 2.0),
        ([[0.1, 0.9], [0.8, 0.2]], 2.0, 2.0),
    ],
)
def test_two_samples_of_two_classes(teacher, inter, intra):
    student = logits_of([[0.6, 0.4], [0.3, 0.7]])
    for weight in (0.0, 3.0):
        found = loss_of(student, logits_of(teacher), intra_weight=weight)
        assert found.item() == pytest.approx(inter + weight * intra, abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_agrees_with_torchdistill_in_value_and_gradient(temperature):
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    theirs = mid_level.DISTLoss(".", "output", ".", "output", beta=1.0, gamma=2.0, tau=temperature)
    student, teacher = normal(6, 5, seed=0).requires_grad_(), normal(6, 5, seed=1)
    expected = theirs({".": {"output": student}}, {".": {"output": teacher}})
    found = loss_of(student, teacher, temperature=temperature, intra_weight=2.0)
    assert found.item() > 0.5
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    ours, wanted = (torch.autograd.grad(value, student)[0] for value in (found, expected))
    assert torch.allclose(ours, wanted, rtol=1e-10, atol=1e-14)


def test_half_precision_logits_are_nan_in_torchdistill():
    """It stays in the input's type, where epsilon, 10⁻⁸, is 0."""
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    theirs = mid_level.DISTLoss(".", "output", ".", "output", tau=4.0)
    student, teacher = torch.zeros(4, 5).half(), normal(4, 5, seed=2).half()
    assert theirs({".": {"output": student}}, {".": {"output": teacher}}).isnan()
    assert loss_of(student, teacher, temperature=4.0).item() == pytest.approx(16 * 2.0, rel=1e-3)


def test_probabilities_may_be_any_rising_line_of_the_teachers():
    """A less certain student, the teacher's outputs mixed with equal ones, relates alike."""
    teacher = normal(6, 5, seed=3)
    mixed = (0.3 * F.softmax(teacher, dim=1) + 0.7 / 5).log()
    assert loss_of(mixed, teacher, intra_weight=2.0).item() == pytest.approx(0.0, abs=1e-12)
    assert kl_divergence(mixed, teacher, temperature=1.0).item() > 0.05


def test_logits_may_be_shifted_but_not_scaled():
    student, teacher = normal(4, 6, seed=4), normal(4, 6, seed=5)
    expected = loss_of(student, teacher).item()
    shifted = student + torch.tensor([[3.0], [-20.0], [0.5], [100.0]], dtype=torch.float64)
    assert loss_of(shifted, teacher).item() == pytest.approx(expected, rel=1e-10)
    assert loss_of(3.0 * student, teacher).item() != pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("intra_weight", [0.0, 1.0])
def test_the_order_of_samples_and_classes_does_not_matter(intra_weight):
    student, teacher = normal(5, 4, seed=6), normal(5, 4, seed=7)
    expected = loss_of(student, teacher, intra_weight=intra_weight).item()
    for order in ((slice(None), [2, 0, 3, 1]), ([3, 1, 0, 4, 2], slice(None))):
        turned = loss_of(student[order], teacher[order], intra_weight=intra_weight).item()
        assert turned == pytest.approx(expected, rel=1e-12)


def test_the_terms_read_rows_and_columns():
    """Exchanging two rows' outputs inside the student alone changes both terms."""
    student, teacher = normal(5, 4, seed=8), normal(5, 4, seed=9)
    turned = student[[1, 0, 2, 3, 4]]
    for weight in (0.0, 1e6):
        before, after = (loss_of(s, teacher, intra_weight=weight).item() for s in (student, turned))
        assert after != pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_matches_finite_differences(temperature):
    student, teacher = normal(4, 3, seed=10).requires_grad_(), normal(4, 3, seed=11)
    assert torch.autograd.gradcheck(
        lambda z: loss_of(z, teacher, temperature=temperature, intra_weight=2.0), (student,)
    )


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_identical_logits_give_zero_and_no_gradient(dtype, error):
    logits = normal(6, 5, seed=12, dtype=dtype).requires_grad_()
    found = loss_of(logits, logits.detach(), temperature=4.0)
    found.backward()
    assert abs(found.item()) < error
    assert logits.grad.abs().max() < error


def test_what_does_not_vary_counts_as_uncorrelated():
    teacher = normal(4, 5, seed=13)
    same = torch.zeros_like(teacher)
    # 0.25 and 0.5 are exact: their mean over the samples is no other number.
    row = logits_of([[0.25, 0.5, 0.125, 0.0625, 0.0625]]).expand(4, 5)
    assert loss_of(same, teacher, intra_weight=3.0).item() == pytest.approx(1 + 3.0)
    assert loss_of(row, teacher, intra_weight=1e3).item() == pytest.approx(1e3, rel=2e-3)
    # Also where student and teacher agree: they are certain of one class in every sample.
    certain = torch.tensor([[1e3, 0.0, -1e3]], dtype=torch.float64).expand(4, 3)
    assert loss_of(certain, certain, intra_weight=3.0).item() == pytest.approx(3.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_extreme_logits_stay_finite(dtype, temperature):
    student = torch.tensor([[1e3, -1e3], [-1e3, 1e3]], dtype=dtype).requires_grad_()
    teacher = -student.detach()
    found = loss_of(student, teacher, temperature=temperature)
    found.backward()
    assert found.item() == pytest.approx(temperature**2 * (2 + 2), rel=1e-6)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("student", [torch.zeros(8, 10), torch.arange(10.0).expand(8, 10)])
def test_an_undecided_student_has_finite_gradients(student):
    logits = student.clone().requires_grad_()
    found = loss_of(logits, normal(8, 10, seed=14, dtype=torch.float32), temperature=4.0)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = normal(4, 10, seed=15).to(dtype), normal(4, 10, seed=16).to(dtype)
    expected = loss_of(student.float(), teacher.float(), temperature=4.0)
    for pair in ((student, teacher), (student.float(), teacher), (student, teacher.float())):
        found = loss_of(*pair, temperature=4.0)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss_of(student, teacher, temperature=4.0), expected)


def test_labels_are_not_used_and_the_methods_weight_is_the_intra_weight():
    student, teacher = normal(4, 5, seed=17), normal(4, 5, seed=18)
    built = build_logit_loss(temperature=2.0, weight=3.0)
    expected = loss_of(student, teacher, temperature=2.0, intra_weight=3.0)
    for labels in ([-1, -1, -1, -1], [0, 1, 2, 3]):
        assert torch.equal(built(student, teacher, torch.tensor(labels)), expected)
    assert list(built.parameters()) == []
