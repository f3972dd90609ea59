"""Similarity-preserving distillation: which images of a batch are alike."""

import math

import numpy as np
import pytest
import torch

from distillation.losses.similarity import FEATURES, SimilarityFeatureLoss, build_feature_loss


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loss_of(student, teacher):
    return SimilarityFeatureLoss()(student, teacher)


def as_maps(vectors):
    """Vectors (B, C) as maps of one pixel (B, C, 1, 1)."""
    return torch.tensor(vectors, dtype=torch.float64)[:, :, None, None]


def paper_loss(student, teacher):
    """Tung and Mori (2019), equations 1 to 4, entry by entry."""

    def matrix(features):
        rows = features.numpy().reshape(len(features), -1)
        products = np.array([[float(np.dot(a, b)) for b in rows] for a in rows])
        return products / np.sqrt((products**2).sum(axis=1, keepdims=True))

    difference = matrix(student) - matrix(teacher)
    return float((difference**2).sum()) / len(student) ** 2


def test_value_by_hand():
    # The student's products are [[1, 1], [1, 2]], the rows' lengths √2 and √5; the teacher's
    # images have nothing in common.
    student, teacher = as_maps([[1.0, 0.0], [1.0, 1.0]]), as_maps([[3.0, 0.0], [0.0, 5.0]])
    first = (1 / math.sqrt(2) - 1) ** 2 + (1 / math.sqrt(2)) ** 2
    second = (1 / math.sqrt(5)) ** 2 + (2 / math.sqrt(5) - 1) ** 2
    found = loss_of(student, teacher)
    assert found.shape == ()
    assert found.item() == pytest.approx((first + second) / 4, rel=1e-12)


def test_positions_count_as_much_as_channels():
    student = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 1.0]]]], dtype=torch.float64)
    found = loss_of(student, as_maps([[1.0], [1.0]]))
    # Products [[5, 2], [2, 1]]; the teacher's rows are (1, 1) / √2.
    half = 1 / math.sqrt(2)
    rows = [(5 / math.sqrt(29), 2 / math.sqrt(29)), (2 / math.sqrt(5), 1 / math.sqrt(5))]
    expected = sum((value - half) ** 2 for row in rows for value in row) / 4
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_agrees_with_the_papers_equations_for_maps_of_different_sizes():
    student, teacher = normal(5, 3, 4, 4, seed=0), normal(5, 7, 2, 3, seed=1)
    expected = paper_loss(student, teacher)
    assert expected > 0.01
    assert loss_of(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_torchdistill_divides_by_the_sum_of_absolute_values():
    """`normalize(z, 1)` in its SPKDLoss is p = 1; equation 2 has the Euclidean length."""
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    student, teacher = normal(5, 3, 2, 2, seed=2), normal(5, 4, 2, 2, seed=3)
    theirs = mid_level.SPKDLoss("s", "t", reduction="batchmean")
    found = theirs({"s": {"output": student}}, {"t": {"output": teacher}}).item()
    assert found != pytest.approx(paper_loss(student, teacher), rel=0.1)

    def matrix(features):
        products = features.flatten(1) @ features.flatten(1).T
        return products / products.abs().sum(dim=1, keepdim=True)

    by_sums = (matrix(student) - matrix(teacher)).square().sum().item() / 5**2
    assert found == pytest.approx(by_sums, rel=1e-10)
    # With the Euclidean length in its place it is ours, reduction and all.
    theirs.matmul_and_normalize = lambda z: torch.nn.functional.normalize(
        z.flatten(1) @ z.flatten(1).T, dim=1
    )
    mended = theirs({"s": {"output": student}}, {"t": {"output": teacher}}).item()
    assert loss_of(student, teacher).item() == pytest.approx(mended, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_the_scale_of_all_features_does_not_matter(scale):
    student, teacher = normal(4, 3, 2, 2, seed=4), normal(4, 5, 2, 2, seed=5)
    expected = loss_of(student, teacher).item()
    assert loss_of(scale * student, teacher).item() == pytest.approx(expected, rel=1e-10)
    assert loss_of(student, scale * teacher).item() == pytest.approx(expected, rel=1e-10)


def test_the_scale_of_one_image_does():
    """Only the rows are normalised: a larger image weighs more in every other's row."""
    student, teacher = normal(4, 3, 2, 2, seed=6), normal(4, 5, 2, 2, seed=7)
    larger = student * torch.tensor([10.0, 1.0, 1.0, 1.0])[:, None, None, None]
    expected = loss_of(student, teacher).item()
    assert loss_of(larger, teacher).item() != pytest.approx(expected, rel=0.01)


def test_channels_and_positions_have_no_order():
    student, teacher = normal(4, 3, 2, 2, seed=8), normal(4, 5, 2, 2, seed=9)
    expected = loss_of(student, teacher).item()
    for turned in (student[:, [2, 0, 1]], student.flip(2), -student):
        assert loss_of(turned, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_images_have_an_order_that_both_share():
    student, teacher = normal(4, 3, 2, 2, seed=10), normal(4, 5, 2, 2, seed=11)
    order = [2, 0, 3, 1]
    expected = loss_of(student, teacher).item()
    assert loss_of(student[order], teacher[order]).item() == pytest.approx(expected, rel=1e-12)
    assert loss_of(student[order], teacher).item() != pytest.approx(expected, rel=0.01)


def test_gradient_matches_finite_differences():
    student, teacher = normal(3, 2, 2, 2, seed=12).requires_grad_(), normal(3, 4, 1, 2, seed=13)
    assert torch.autograd.gradcheck(lambda features: loss_of(features, teacher), (student,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_identical_features_give_exactly_zero(dtype):
    features = normal(4, 3, 2, 2, seed=14).to(dtype).requires_grad_()
    found = loss_of(features, features.detach())
    found.backward()
    assert found.item() == 0.0
    assert (features.grad == 0).all()


def test_one_image_alone_has_nothing_to_be_compared_with():
    found = loss_of(normal(1, 3, 2, 2, seed=15), normal(1, 5, 2, 2, seed=16))
    assert found.item() == pytest.approx(0.0, abs=1e-30)


def test_zero_features_stay_finite():
    teacher = normal(4, 3, 2, 2, seed=17)
    student = torch.zeros_like(teacher).requires_grad_()
    found = loss_of(student, teacher)
    found.backward()
    # Each of the teacher's 4 rows has length 1, the student's 0.
    assert found.item() == pytest.approx(4 / 4**2, rel=1e-12)
    assert torch.isfinite(student.grad).all()
    assert loss_of(student, torch.zeros_like(teacher)).item() == 0.0
    one_zero = normal(4, 3, 2, 2, seed=18)
    one_zero[2] = 0.0
    one_zero.requires_grad_()
    loss_of(one_zero, teacher).backward()
    assert torch.isfinite(one_zero.grad).all()


def test_large_features_stay_finite():
    student = (1e4 * normal(4, 8, 7, 7, seed=19, dtype=torch.float32)).requires_grad_()
    teacher = normal(4, 3, 2, 2, seed=20, dtype=torch.float32)
    found = loss_of(student, teacher)
    found.backward()
    assert found.item() == pytest.approx(loss_of(student.double(), teacher.double()).item(), 1e-4)
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    # 200² · 64 overflows float16.
    student, teacher = (200 * normal(4, 64, 3, 3, seed=seed).to(dtype) for seed in (21, 22))
    expected = loss_of(student.float(), teacher.float())
    assert expected > 0
    for pair in ((student, teacher), (student.float(), teacher), (student, teacher.float())):
        found = loss_of(*pair)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_autocast_does_not_reach_the_products():
    """A trained student's similarities differ from the teacher's by less than 2⁻⁹."""
    teacher = normal(16, 32, 4, 4, seed=23, dtype=torch.float32).relu()
    student = teacher + 0.01 * normal(16, 32, 4, 4, seed=24, dtype=torch.float32)
    expected = loss_of(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss_of(student, teacher)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_teachers_whole_map_is_needed_and_nothing_is_trained():
    assert FEATURES == "map"
    student, teacher = normal(4, 3, 2, 2, seed=25), normal(4, 5, 2, 2, seed=26)
    pooled = teacher.mean(dim=(2, 3), keepdim=True)
    loss = build_feature_loss(3, 5)
    assert loss(student, pooled).item() != pytest.approx(loss(student, teacher).item(), rel=0.05)
    assert list(loss.parameters()) == []
