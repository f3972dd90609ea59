"""The cosine distance of pooled features."""

import math

import pytest
import torch

from distillation.losses.exp2 import FEATURES, CosineFeatureLoss, build_feature_loss


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def as_maps(vectors):
    """Vectors (B, C) as maps of one pixel (B, C, 1, 1)."""
    return torch.tensor(vectors, dtype=torch.float64)[:, :, None, None]


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ([[1.0, 0.0]], [[1.0, 1.0]], 1 - 1 / math.sqrt(2)),
        ([[3.0, 4.0]], [[4.0, 3.0]], 1 - 24 / 25),
        ([[1.0, 0.0]], [[0.0, 5.0]], 1.0),
        ([[1.0, 2.0]], [[2.0, 4.0]], 0.0),
        ([[1.0, 2.0]], [[-0.5, -1.0]], 2.0),
        # Samples are averaged after the distance, not before: (0 + 2) / 2.
        ([[1.0, 0.0], [0.0, 1.0]], [[9.0, 0.0], [0.0, -1.0]], 1.0),
        # Cut to the student's two channels, and to the teacher's two.
        ([[3.0, 4.0]], [[4.0, 3.0, 100.0]], 1 - 24 / 25),
        ([[3.0, 4.0, -7.0, 1.0]], [[4.0, 3.0]], 1 - 24 / 25),
    ],
)
def test_values_by_hand(student, teacher, expected):
    loss = CosineFeatureLoss(len(student[0]), len(teacher[0]))
    found = loss(as_maps(student), as_maps(teacher))
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_maps_of_different_sizes_are_pooled_to_their_means():
    student = torch.tensor([[[[1.0, 5.0]], [[2.0, 6.0]]]], dtype=torch.float64)  # means 3, 4
    teacher = torch.tensor(
        [[[[0.0, 8.0], [4.0, 4.0]], [[3.0, 3.0], [3.0, 3.0]]]], dtype=torch.float64
    )  # means 4, 3
    found = CosineFeatureLoss(2, 2)(student, teacher)
    assert found.item() == pytest.approx(1 - 24 / 25, abs=1e-12)


@pytest.mark.parametrize(("student_channels", "teacher_channels"), [(3, 5), (5, 3)])
def test_channels_behind_the_cut_have_no_influence(student_channels, teacher_channels):
    student = normal(2, student_channels, 3, 3, seed=0).requires_grad_()
    teacher = normal(2, teacher_channels, 2, 2, seed=1).requires_grad_()
    loss = build_feature_loss(student_channels, teacher_channels)
    found = loss(student, teacher)
    found.backward()
    assert found.item() == loss(student[:, :3], teacher[:, :3]).item()
    for features in (student, teacher):
        assert features.grad[:, :3].abs().min() > 0
        assert (features.grad[:, 3:] == 0).all()


def test_gradient_matches_finite_differences():
    student, teacher = normal(2, 4, 3, 3, seed=2).requires_grad_(), normal(2, 3, 2, 2, seed=3)
    loss = CosineFeatureLoss(4, 3)
    assert torch.autograd.gradcheck(lambda features: loss(features, teacher), (student,))


def test_the_gradient_is_at_right_angles_to_the_features():
    """A longer vector has the same cosine."""
    student, teacher = normal(3, 6, 1, 1, seed=4).requires_grad_(), normal(3, 6, 1, 1, seed=5)
    CosineFeatureLoss(6, 6)(student, teacher).backward()
    assert student.grad.abs().max() > 1e-3
    assert (student * student.grad).sum(dim=1).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sign", "expected"), [(1.0, 0.0), (-1.0, 2.0)])
def test_identical_and_opposite_features(dtype, sign, expected):
    features = normal(4, 16, 5, 5, seed=6, dtype=dtype)
    found = CosineFeatureLoss(16, 16)(sign * 3.0 * features, features)
    assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
def test_zero_features_stay_finite(zero):
    student, teacher = normal(2, 4, 2, 2, seed=7), normal(2, 4, 2, 2, seed=8)
    if zero != "teacher":
        student = torch.zeros_like(student)
    if zero != "student":
        teacher = torch.zeros_like(teacher)
    student.requires_grad_()
    found = CosineFeatureLoss(4, 4)(student, teacher)
    found.backward()
    assert found.item() == pytest.approx(1.0)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("scale", [1e-3, 1e3, 1e15])
def test_the_scale_of_the_features_does_not_matter(scale):
    student = normal(2, 8, 2, 2, seed=9, dtype=torch.float32)
    teacher = normal(2, 8, 2, 2, seed=10, dtype=torch.float32)
    loss = CosineFeatureLoss(8, 8)
    expected = loss(student, teacher).item()
    scaled = (scale * student).requires_grad_()
    found = loss(scaled, teacher)
    found.backward()
    assert found.item() == pytest.approx(expected, rel=1e-4)
    assert torch.isfinite(scaled.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    # 200² · 64 overflows float16; the means of 49 pixels lose digits in either type.
    student, teacher = (200 * normal(3, 64, 7, 7, seed=seed).abs().to(dtype) for seed in (11, 12))
    loss = CosineFeatureLoss(64, 64)
    found = loss(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(student.float(), teacher.float()))
    assert 0 < found.item() < 1


def test_a_batch_is_the_mean_of_its_samples():
    student, teacher = normal(2, 4, 3, 3, seed=13), normal(2, 4, 3, 3, seed=14)
    loss = CosineFeatureLoss(4, 4)
    singles = [loss(student[i : i + 1], teacher[i : i + 1]).item() for i in range(2)]
    assert singles[0] != pytest.approx(singles[1], rel=0.01)
    assert loss(student, teacher).item() == pytest.approx(sum(singles) / 2, rel=1e-12)


def test_there_is_nothing_to_train():
    assert list(build_feature_loss(4, 8).parameters()) == []


def test_the_teachers_pooled_features_are_enough():
    """What is stored of a teacher may be its map or the mean over the positions."""
    assert FEATURES == "pooled"
    student, teacher = normal(3, 4, 5, 5, seed=15), normal(3, 6, 3, 3, seed=16)
    loss = CosineFeatureLoss(4, 6)
    pooled = teacher.mean(dim=(2, 3), keepdim=True)
    assert loss(student, pooled).item() == pytest.approx(loss(student, teacher).item(), rel=1e-12)
