"""Attention transfer: where the activation lies."""

import math

import numpy as np
import pytest
import torch

from distillation.losses.attention import FEATURES, AttentionFeatureLoss, build_feature_loss


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loss_of(student, teacher):
    return AttentionFeatureLoss()(student, teacher)


def as_map(*channels):
    """One image of channels given as rows."""
    return torch.tensor([channels], dtype=torch.float64)


def paper_distances(student, teacher):
    """‖Q_s / ‖Q_s‖ − Q_t / ‖Q_t‖‖ of each image (Zagoruyko and Komodakis, 2017, equation 2)."""

    def unit(image):
        attention = sum(channel.astype(float) ** 2 for channel in image).ravel()
        return attention / math.sqrt((attention**2).sum())

    pairs = zip(student.numpy(), teacher.numpy(), strict=True)
    return np.array([math.sqrt(((unit(s) - unit(t)) ** 2).sum()) for s, t in pairs])


def at_loss(mode):
    mid_level = pytest.importorskip("torchdistill.losses.mid_level")
    place = {"io": "output", "path": "."}
    loss = mid_level.ATLoss({"pair": {"student": place, "teacher": place}}, mode=mode)
    return lambda student, teacher: loss({".": {"output": student}}, {".": {"output": teacher}})


def test_value_by_hand():
    student, teacher = as_map([[1.0, 2.0]], [[2.0, 0.0]]), as_map([[3.0, 0.0]], [[0.0, -4.0]])
    # Attention 1 + 4, 4 + 0 of length √41, and 9, 16 of length √337.
    errors = [5 / math.sqrt(41) - 9 / math.sqrt(337), 4 / math.sqrt(41) - 16 / math.sqrt(337)]
    found = loss_of(student, teacher)
    assert found.shape == ()
    assert found.item() == pytest.approx(sum(error**2 for error in errors) / 2, rel=1e-12)


def test_attention_is_pooled_after_squaring():
    # Pooled first, the student's 3 and −3 would cancel: (9 + 9) / 2 = 9 and (1 + 25) / 2 = 13.
    student, teacher = as_map([[3.0, -3.0, 1.0, 5.0]]), as_map([[1.0, 0.0]])
    length = math.sqrt(9**2 + 13**2)
    expected = ((9 / length - 1) ** 2 + (13 / length) ** 2) / 2
    assert loss_of(student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        # Up: every pixel is repeated; down: the mean of squares; the teacher's Q is 4 : 9.
        ([[2.0, 3.0]], [[2.0, 2.0, 3.0, 3.0]]),
        ([[2.0, 2.0, 3.0, 3.0]], [[2.0, 3.0]]),
        ([[4.0]], [[1.0, 1.0], [1.0, 1.0]]),
    ],
)
def test_the_students_map_is_pooled_to_the_teachers_size(student, teacher):
    assert loss_of(as_map(student), as_map(teacher)).item() == pytest.approx(0.0, abs=1e-30)


@pytest.mark.parametrize(("height", "width"), [(1, 2), (3, 2), (7, 7)])
def test_the_largest_value_is_two_over_the_positions(height, width):
    student, teacher = torch.zeros(3, 2, height, width), torch.zeros(3, 5, height, width)
    student[:, 0, 0, 0] = 7.0
    teacher[:, :, -1, -1] = -0.5
    assert loss_of(student, teacher).item() == pytest.approx(2 / (height * width), rel=1e-6)


def test_it_is_the_papers_distance_squared_and_averaged_over_positions():
    student, teacher = normal(5, 3, 4, 3, seed=0), normal(5, 6, 4, 3, seed=1)
    expected = (paper_distances(student, teacher) ** 2 / 12).mean()
    assert expected > 0.01
    assert loss_of(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_agrees_with_torchdistill_which_follows_the_papers_code():
    student, teacher = normal(5, 3, 4, 3, seed=2).requires_grad_(), normal(5, 6, 4, 3, seed=3)
    found, expected = loss_of(student, teacher), at_loss("code")(student, teacher)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(value, student)[0] for value in (found, expected))
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-16)


def test_torchdistills_paper_mode_is_the_distance_itself():
    """Not squared, not averaged over positions, and without the paper's factor of 1/2."""
    student, teacher = normal(5, 3, 4, 3, seed=4), normal(5, 6, 4, 3, seed=5)
    found = at_loss("paper")(student, teacher).item()
    assert found == pytest.approx(paper_distances(student, teacher).mean(), rel=1e-10)
    one = at_loss("paper")(student[:1], teacher[:1]).item()
    assert loss_of(student[:1], teacher[:1]).item() == pytest.approx(one**2 / 12, rel=1e-10)


def test_torchdistill_takes_neither_two_sizes_nor_half_precision():
    with pytest.raises(RuntimeError, match="must match the size"):
        at_loss("code")(normal(2, 3, 4, 4, seed=6), normal(2, 3, 2, 2, seed=7))
    features = torch.full((1, 3, 2, 2), 400.0).half()  # 400² is infinite in float16.
    assert at_loss("code")(features, features).isnan()
    assert loss_of(features, features).item() == 0.0


@pytest.mark.parametrize("scale", [1e-3, -1.0, 1e4])
def test_the_scale_of_each_image_does_not_matter(scale):
    student, teacher = normal(3, 4, 3, 3, seed=8), normal(3, 5, 3, 3, seed=9)
    expected = loss_of(student, teacher).item()
    scales = torch.tensor([1.0, scale, 2.0], dtype=torch.float64)[:, None, None, None]
    assert loss_of(scales * student, teacher).item() == pytest.approx(expected, rel=1e-10)
    assert loss_of(student, scales * teacher).item() == pytest.approx(expected, rel=1e-10)


def test_channels_have_no_order_and_positions_have():
    student, teacher = normal(3, 4, 3, 3, seed=10), normal(3, 5, 3, 3, seed=11)
    expected = loss_of(student, teacher).item()
    turned = loss_of(student[:, [2, 0, 3, 1]], teacher[:, [4, 3, 2, 1, 0]]).item()
    assert turned == pytest.approx(expected, rel=1e-12)
    assert loss_of(student.flip(2), teacher).item() != pytest.approx(expected, rel=0.01)
    both = loss_of(student.flip(2), teacher.flip(2)).item()
    assert both == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_gradient_matches_finite_differences(size):
    student, teacher = normal(2, 3, 3, 3, seed=12).requires_grad_(), normal(2, 2, size, 2, seed=13)
    assert torch.autograd.gradcheck(lambda features: loss_of(features, teacher), (student,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_identical_features_give_exactly_zero(dtype):
    features = normal(4, 3, 5, 5, seed=14).to(dtype).requires_grad_()
    found = loss_of(features, features.detach())
    found.backward()
    assert found.item() == 0.0
    assert (features.grad == 0).all()


def test_zero_features_stay_finite():
    teacher = normal(2, 3, 2, 2, seed=15)
    student = torch.zeros_like(teacher).requires_grad_()
    found = loss_of(student, teacher)
    found.backward()
    # The teacher's attention has length 1, the student's 0.
    assert found.item() == pytest.approx(1 / 4, rel=1e-12)
    assert torch.isfinite(student.grad).all()
    assert loss_of(student, torch.zeros_like(teacher)).item() == 0.0


def test_large_features_stay_finite():
    student = (1e4 * normal(2, 512, 7, 7, seed=16, dtype=torch.float32)).requires_grad_()
    teacher = normal(2, 3, 7, 7, seed=17, dtype=torch.float32)
    found = loss_of(student, teacher)
    found.backward()
    expected = loss_of(student.double(), teacher.double()).item()
    assert found.item() == pytest.approx(expected, rel=1e-4)
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = (400 * normal(2, 8, 5, 5, seed=seed).to(dtype) for seed in (18, 19))
    expected = loss_of(student.float(), teacher.float())
    assert expected > 0
    for pair in ((student, teacher), (student.float(), teacher), (student, teacher.float())):
        found = loss_of(*pair)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss_of(student, teacher), expected)


def test_a_batch_is_the_mean_of_its_samples_in_any_order():
    student, teacher = normal(2, 3, 4, 4, seed=20), normal(2, 5, 2, 2, seed=21)
    singles = [loss_of(student[i : i + 1], teacher[i : i + 1]).item() for i in range(2)]
    assert singles[0] != pytest.approx(singles[1], rel=0.01)
    both = loss_of(student, teacher).item()
    assert both == pytest.approx(sum(singles) / 2, rel=1e-12)
    assert loss_of(student.flip(0), teacher.flip(0)).item() == pytest.approx(both, rel=1e-12)


def test_the_teachers_whole_map_is_needed_and_nothing_is_trained():
    assert FEATURES == "map"
    assert list(build_feature_loss(3, 5).parameters()) == []
    # A map of one position has attention 1 whatever it holds.
    pooled = build_feature_loss(3, 5)(normal(2, 3, 4, 4, seed=22), normal(2, 5, 1, 1, seed=23))
    assert pooled.item() == pytest.approx(0.0, abs=1e-30)
