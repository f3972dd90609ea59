"""The regressor's error between unit vectors."""

import math

import pytest
import torch
from torch.nn import functional as F

from distillation.losses.exp3 import RegressorFeatureLoss
from distillation.losses.exp3_scaled import (
    FEATURES,
    RAMP_FRACTION,
    ScaledRegressorFeatureLoss,
    build_feature_loss,
)


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_loss(weights, biases):
    """A regressor in float64 with given weights (Ct, Cs) and biases (Ct,)."""
    loss = ScaledRegressorFeatureLoss(len(weights[0]), len(weights)).double()
    with torch.no_grad():
        loss.regressor.weight.copy_(torch.tensor(weights)[:, :, None, None])
        loss.regressor.bias.copy_(torch.tensor(biases))
    return loss


def identity(channels):
    return make_loss(torch.eye(channels).tolist(), [0.0] * channels)


def as_maps(vectors):
    """Vectors (B, C) as maps of one pixel (B, C, 1, 1)."""
    return torch.tensor(vectors, dtype=torch.float64)[:, :, None, None]


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        ([[1.0, 0.0]], [[1.0, 1.0]], 2 - math.sqrt(2)),
        ([[3.0, 4.0]], [[4.0, 3.0]], 2 - 2 * 24 / 25),
        ([[1.0, 2.0]], [[10.0, 20.0]], 0.0),
        ([[1.0, 0.0]], [[0.0, 5.0]], 2.0),
        ([[1.0, 2.0]], [[-0.5, -1.0]], 4.0),
        # Samples are averaged after the distance, not before: (0 + 4) / 2.
        ([[1.0, 0.0], [0.0, 1.0]], [[9.0, 0.0], [0.0, -1.0]], 2.0),
    ],
)
def test_values_by_hand(student, teacher, expected):
    found = identity(2)(as_maps(student), as_maps(teacher))
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_value_by_hand_through_the_regressor_at_two_positions():
    student = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[0.0, 2.0]], [[-1.0, -2.0]], [[1.0, 1.0]]]], dtype=torch.float64)
    loss = make_loss([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]], [1.0, -1.0, 2.0])
    # predicted: (2, 2, 0) against (0, −1, 1), and (3, −2, 5) against (2, −2, 1)
    cosines = [-2 / math.sqrt(8 * 2), (6 + 4 + 5) / math.sqrt(38 * 9)]
    expected = sum(2 - 2 * cosine for cosine in cosines) / 2
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_it_is_the_squared_distance_of_unit_vectors():
    loss = ScaledRegressorFeatureLoss(4, 3).double()
    student, teacher = normal(3, 4, 6, 6, seed=0), normal(3, 3, 2, 3, seed=1)
    predicted = torch.einsum("oc,bchw->bohw", loss.regressor.weight[:, :, 0, 0], student)
    predicted = predicted + loss.regressor.bias[:, None, None]
    pooled = predicted.view(3, 3, 2, 3, 3, 2).mean(dim=(3, 5))  # 6 × 6 to 2 × 3
    units = [
        features / features.square().sum(1, keepdim=True).sqrt() for features in (pooled, teacher)
    ]
    expected = (units[0] - units[1]).square().sum(1).mean().item()
    assert 0.5 < expected < 4
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("student", "pooled"),
    [
        ([[1.0, 2.0], [3.0, 6.0]], [[3.0]]),
        ([[1.0, 2.0, 6.0]], [[1.5, 4.0]]),  # 3 → 2: the windows overlap in the middle.
        ([[7.0]], [[7.0, 7.0], [7.0, 7.0]]),
    ],
)
def test_the_prediction_is_pooled_to_the_teachers_size(student, pooled):
    # The second channel is constant, so that the first one's value turns the vector.
    loss = make_loss([[2.0], [0.0]], [-1.0, 1.0])
    first = 2.0 * torch.tensor([[pooled]], dtype=torch.float64) - 1.0
    teacher = torch.cat([first, torch.ones_like(first)], dim=1)
    found = loss(torch.tensor([[student]], dtype=torch.float64), teacher)
    assert found.item() == pytest.approx(0.0, abs=1e-12)


def test_gradients_match_finite_differences():
    loss = ScaledRegressorFeatureLoss(3, 2).double()
    student, teacher = normal(2, 3, 3, 3, seed=2).requires_grad_(), normal(2, 2, 2, 2, seed=3)
    weight, bias = (p.detach().clone().requires_grad_() for p in loss.parameters())

    def apply(features, weight, bias):
        values = {"regressor.weight": weight, "regressor.bias": bias}
        return torch.func.functional_call(loss, values, (features, teacher))

    assert torch.autograd.gradcheck(apply, (student, weight, bias))


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_the_scale_of_either_side_does_not_matter(scale):
    """What the literal experiment 3 lacks."""
    student, teacher = normal(2, 4, 3, 3, seed=4), normal(2, 3, 3, 3, seed=5)
    loss, literal = make_loss(normal(3, 4, seed=6).tolist(), [0.0] * 3), RegressorFeatureLoss(4, 3)
    literal.load_state_dict(loss.state_dict())
    literal.double()
    expected = loss(student, teacher).item()
    assert loss(scale * student, teacher).item() == pytest.approx(expected, rel=1e-6)
    assert loss(student, scale * teacher).item() == pytest.approx(expected, rel=1e-6)
    scaled = literal(scale * student, scale * teacher).item()
    assert scaled == pytest.approx(scale**2 * literal(student, teacher).item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sign", "expected"), [(1.0, 0.0), (-1.0, 4.0)])
def test_identical_and_opposite_features(dtype, sign, expected):
    features = normal(4, 16, 5, 5, seed=7, dtype=dtype)
    found = identity(16).to(dtype)(sign * 3.0 * features, features)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_every_value_lies_between_0_and_4():
    for seed in range(20):
        student, teacher = normal(1, 3, 1, 1, seed=seed), normal(1, 2, 1, 1, seed=100 + seed)
        assert 0 <= ScaledRegressorFeatureLoss(3, 2).double()(100 * student, teacher).item() <= 4


def test_the_regressor_can_be_trained():
    student = normal(4, 3, 2, 2, seed=8)
    mixing = normal(2, 3, seed=9)
    teacher = 50.0 * torch.einsum("oc,bchw->bohw", mixing, student)
    loss = make_loss([[0.1] * 3] * 2, [0.1] * 2)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    before = loss(student, teacher).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    assert loss(student, teacher).item() < 1e-2 * before


@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
def test_zero_features_stay_finite(zero):
    student, teacher = normal(2, 4, 2, 2, seed=10), normal(2, 4, 2, 2, seed=11)
    if zero != "teacher":
        student = torch.zeros_like(student)
    if zero != "student":
        teacher = torch.zeros_like(teacher)
    student.requires_grad_()
    loss = identity(4)
    found = loss(student, teacher)
    found.backward()
    assert found.item() == pytest.approx(2.0)
    for tensor in (student, *loss.parameters()):
        assert torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("scale", [1e4, -1e4, 1e15])
def test_large_features_stay_finite(scale):
    student = (scale * normal(2, 4, 2, 2, seed=12, dtype=torch.float32)).requires_grad_()
    loss = build_feature_loss(4, 3)
    found = loss(student, scale * normal(2, 3, 2, 2, seed=13, dtype=torch.float32))
    found.backward()
    assert 0 < found.item() < 4
    assert torch.isfinite(student.grad).all()
    assert loss.regressor.weight.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype):
    # 400² is infinite in float16.
    student, teacher = (400 * normal(2, 4, 3, 3, seed=seed).to(dtype) for seed in (14, 15))
    expected = identity(4).float()(student.float(), teacher.float())
    half = identity(4).to(dtype)
    for found in (half(student, teacher), half(student, teacher.float())):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert half.float()(student.float(), teacher).dtype == torch.float32


def test_a_half_precision_teacher_beside_a_float32_student():
    """The length of its 16 channels of 4e4, 1.6e5, is infinite in float16: the cosine is 0."""
    loss = identity(16).float()
    teacher = torch.full((1, 16, 1, 1), 4e4).half()
    assert loss(teacher.float(), teacher.float()).item() == pytest.approx(0.0, abs=1e-6)
    assert loss(teacher.float(), teacher).item() == pytest.approx(0.0, abs=1e-6)


def test_a_batch_is_the_mean_of_its_samples_in_any_order():
    student, teacher = normal(2, 3, 3, 3, seed=16), normal(2, 2, 2, 2, seed=17)
    loss = make_loss([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0]], [0.0, 0.1])
    singles = [loss(student[i : i + 1], teacher[i : i + 1]).item() for i in range(2)]
    assert singles[0] != pytest.approx(singles[1], rel=0.01)
    both = loss(student, teacher).item()
    assert both == pytest.approx(sum(singles) / 2, rel=1e-12)
    assert loss(student.flip(0), teacher.flip(0)).item() == pytest.approx(both, rel=1e-12)


def test_the_teachers_whole_map_is_needed_and_the_weight_is_ramped():
    assert FEATURES == "map"
    assert 0 < RAMP_FRACTION < 1
    loss = build_feature_loss(5, 7)
    shapes = {name: tuple(value.shape) for name, value in loss.named_parameters()}
    assert shapes == {"regressor.weight": (7, 5, 1, 1), "regressor.bias": (7,)}
    student, teacher = normal(2, 5, 4, 4, seed=18).float(), normal(2, 7, 4, 4, seed=19).float()
    whole, pooled = (loss(student, F.adaptive_avg_pool2d(teacher, n)).item() for n in (4, 1))
    assert whole != pytest.approx(pooled, rel=0.01)
