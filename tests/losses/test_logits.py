"""The softened Kullback–Leibler divergence, and the objective that is made of it and the labels."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distillation.distilling.objective import DistillationObjective, Weights
from distillation.losses.logits import KLLogitLoss, kl_divergence
from distillation.models.creation import create_classifier

NUM_CLASSES = 5


def normal(*shape, seed, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def kl_by_hand(student, teacher, temperature):
    """T² · Σ p (log p − log q), averaged over the rows, with the math module alone."""

    def softmax(row):
        weights = [math.exp(value / temperature) for value in row]
        return [weight / sum(weights) for weight in weights]

    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        for q, p in zip(softmax(student_row), softmax(teacher_row), strict=True):
            total += p * (math.log(p) - math.log(q))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_matches_the_sum_written_out(temperature):
    student = [[1.0, -0.5, 2.0], [0.0, 0.3, -1.2]]
    teacher = [[0.2, 0.1, 1.5], [-2.0, 0.0, 1.0]]
    found = kl_divergence(
        torch.tensor(student, dtype=torch.float64),
        torch.tensor(teacher, dtype=torch.float64),
        temperature=temperature,
    )
    assert found.shape == ()
    assert found.item() == pytest.approx(kl_by_hand(student, teacher, temperature), rel=1e-12)


def test_one_value_with_a_closed_form():
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2). It is not symmetric: the other
    # way round it would be 1/2 ln(2/3) + 1/2 ln 2.
    teacher = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    found = kl_divergence(torch.zeros_like(teacher), teacher, temperature=1.0)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2), rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_matches_finite_differences(temperature):
    student = normal(3, 4, seed=0).requires_grad_()
    teacher = normal(3, 4, seed=1)
    assert torch.autograd.gradcheck(
        lambda logits: kl_divergence(logits, teacher, temperature=temperature), (student,)
    )


@pytest.mark.parametrize("temperature", [0.25, 1.0, 7.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_identical_logits_give_exactly_zero(temperature, dtype):
    logits = normal(6, 10, seed=2, scale=5).to(dtype).requires_grad_()
    found = kl_divergence(logits, logits.detach(), temperature=temperature)
    found.backward()
    assert found.item() == 0.0
    assert logits.grad.abs().max() < 1e-6


def test_a_constant_added_to_a_sample_changes_nothing():
    student, teacher = normal(4, 6, seed=3), normal(4, 6, seed=4)
    shifts = torch.tensor([[3.0], [-20.0], [0.5], [100.0]], dtype=torch.float64)
    expected = kl_divergence(student, teacher, temperature=2.0).item()
    assert expected > 0.01
    for moved in (
        kl_divergence(student + shifts, teacher, temperature=2.0),
        kl_divergence(student, teacher - shifts, temperature=2.0),
    ):
        assert moved.item() == pytest.approx(expected, rel=1e-10)


def test_high_temperature_tends_to_half_the_variance_of_the_difference():
    student, teacher = normal(3, 7, seed=5).requires_grad_(), normal(3, 7, seed=6)
    difference = student - teacher
    centred = (difference - difference.mean(dim=1, keepdim=True)).detach()
    limit = centred.square().mean(dim=1).mean().item() / 2
    found = kl_divergence(student, teacher, temperature=1e4)
    found.backward()
    assert found.item() == pytest.approx(limit, rel=1e-3)
    assert torch.allclose(student.grad, centred / (3 * 7), rtol=5e-3, atol=1e-6)
    assert abs(kl_divergence(student, teacher, temperature=1.0).item() - limit) > 0.01 * limit


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_extreme_logits_stay_finite(dtype, temperature):
    student = torch.tensor([[1e3, -1e3, 0.0], [-1e3, 1e3, 0.0]], dtype=dtype).requires_grad_()
    teacher = torch.tensor([[-1e3, 1e3, 0.0], [-1e3, 1e3, 0.0]], dtype=dtype)
    found = kl_divergence(student, teacher, temperature=temperature)
    found.backward()
    # The first sample is certain of the wrong class, 2000 apart; the second agrees.
    assert found.item() == pytest.approx(temperature * 2e3 / 2, rel=0.01)
    assert torch.isfinite(student.grad).all()
    assert student.grad[0].abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = normal(4, 10, seed=7).to(dtype), normal(4, 10, seed=8).to(dtype)
    expected = kl_divergence(student.float(), teacher.float(), temperature=4.0)
    for pair in ((student, teacher), (student.float(), teacher), (student, teacher.float())):
        found = kl_divergence(*pair, temperature=4.0)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(kl_divergence(student, teacher, temperature=4.0), expected)


def test_a_batch_is_the_mean_of_its_samples():
    student, teacher = normal(2, 6, seed=9), normal(2, 6, seed=10)
    singles = [
        kl_divergence(student[i : i + 1], teacher[i : i + 1], temperature=3.0).item()
        for i in range(2)
    ]
    assert singles[0] != pytest.approx(singles[1], rel=0.01)
    both = kl_divergence(student, teacher, temperature=3.0).item()
    assert both == pytest.approx(sum(singles) / 2, rel=1e-12)
    turned = kl_divergence(student.flip(0), teacher.flip(0), temperature=3.0).item()
    assert turned == pytest.approx(both, rel=1e-12)


class FixedLogits(nn.Module):
    """What timm's task asks of a model, around logits that do not depend on the input."""

    num_classes = NUM_CLASSES
    in_chans = 3
    pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # noqa: RUF012

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images):
        return self.logits * 1.0


def timm_task(student, teacher, temperature, dtype):
    # The oldest timm that is allowed may lack it: then there is nothing to compare with.
    task = pytest.importorskip("timm.task", reason="this timm has no timm.task")
    return task.LogitDistillationTask(
        student_model=student,
        teacher_model=teacher,
        criterion=nn.CrossEntropyLoss(),
        distill_loss_weight=1.0,
        task_loss_weight=0.0,
        temperature=temperature,
        dtype=dtype,
        verbose=False,
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0, 20.0])
def test_agrees_with_timm_in_value_and_gradient(temperature):
    ours = normal(4, NUM_CLASSES, seed=11, scale=3).requires_grad_()
    student, teacher = FixedLogits(ours.detach()), FixedLogits(normal(4, NUM_CLASSES, seed=12))
    task = timm_task(student, teacher, temperature, torch.float64)
    theirs = task(torch.zeros(4, 3, 2, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.int64))
    theirs["loss"].backward()
    found = kl_divergence(ours, teacher.logits.detach(), temperature=temperature)
    found.backward()
    assert found.item() > 0.05
    assert found.item() == pytest.approx(theirs["kd_loss"].item(), rel=1e-6)
    assert found.item() == pytest.approx(theirs["loss"].item(), rel=1e-6)
    assert torch.allclose(ours.grad, student.logits.grad, rtol=1e-6, atol=1e-9)


# The objective of experiment 1: labels and logits.


@pytest.fixture
def pair():
    """A student and a teacher in float64, with normalisations that differ."""
    student = create_classifier("test_resnet", num_classes=NUM_CLASSES, image_size=32, seed=1)
    teacher = create_classifier("test_efficientnet", num_classes=NUM_CLASSES, image_size=32, seed=2)
    assert not torch.equal(student.mean, teacher.mean)
    for model in (student, teacher):
        model.double().eval()
        with torch.no_grad():  # Untrained logits are nearly alike; make them tell classes apart.
            model.net.get_classifier().weight.normal_(generator=torch.Generator().manual_seed(3))
    return student, teacher


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(4)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return images, torch.tensor([0, 3, 1, 4])


def make_objective(teacher, *, label_weight=0.1, alpha=0.9, temperature=4.0):
    return DistillationObjective(
        teacher,
        logit_loss=KLLogitLoss(temperature=temperature),
        weights=Weights(label=label_weight, logit=alpha, feature=0.0),
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_objective_shows_the_teacher_the_pixels_timm_would(pair, batch, temperature):
    student, teacher = pair
    images, labels = batch
    terms = make_objective(teacher, temperature=temperature)(student, images, labels, {})
    task = timm_task(student.net, teacher.net, temperature, torch.float64)
    theirs = task.eval()((images / 255.0 - student.mean) / student.std, labels)["kd_loss"]
    assert terms["logit"].item() > 0.01
    assert terms["logit"].item() == pytest.approx(theirs.item(), rel=1e-6)


def test_alpha_zero_is_exactly_cross_entropy(pair, batch):
    student, teacher = pair
    images, labels = batch
    terms = make_objective(teacher, label_weight=1.0, alpha=0.0)(student, images, labels, {})
    expected = F.cross_entropy(student(images).float(), labels)
    assert torch.equal(terms["loss"].float(), expected)
    by_hand = -student(images).log_softmax(1)[range(4), labels].mean()
    assert expected.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_alpha_one_without_labels_is_exactly_the_divergence(pair, batch):
    student, teacher = pair
    terms = make_objective(teacher, label_weight=0.0, alpha=1.0)(student, *batch, {})
    assert terms["label"].item() > 0
    assert terms["loss"].item() == terms["logit"].item()


def test_the_loss_is_the_weighted_sum_of_two_terms(pair, batch):
    student, teacher = pair
    terms = make_objective(teacher, label_weight=0.3, alpha=0.5)(student, *batch, {})
    assert list(terms) == ["loss", "label", "logit"]
    expected = 0.3 * terms["label"] + 0.5 * terms["logit"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_student_equal_to_its_teacher_has_no_divergence(pair, batch):
    _, teacher = pair
    terms = make_objective(teacher)(teacher, *batch, {})
    assert terms["logit"].item() == 0.0
    assert terms["loss"].item() == pytest.approx(0.1 * terms["label"].item(), rel=1e-6)
