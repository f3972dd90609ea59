"""The regressor's error, and the objective with a feature term and its teacher."""

import copy
import importlib

import pytest
import torch
from torch.nn import functional as F

from distillation.base.methods import EXPERIMENTS, further_methods, module_name
from distillation.base.params import make_params
from distillation.data.rows import ResidentRows
from distillation.distilling.objective import (
    DistillationObjective,
    Weights,
    _warn_once,
    build_objective,
)
from distillation.losses.exp2 import CosineFeatureLoss
from distillation.losses.exp3 import FEATURES, RegressorFeatureLoss, build_feature_loss
from distillation.losses.logits import KLLogitLoss
from distillation.models.creation import create_classifier
from distillation.training.batches import TrainSet
from distillation.training.optimizer import make_optimizer

METHODS = (*EXPERIMENTS, *further_methods())
NUM_CLASSES = 4
IMAGE_SIZE = 32


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_loss(weights, biases):
    """A regressor in float64 with given weights (Ct, Cs) and biases (Ct,)."""
    loss = RegressorFeatureLoss(len(weights[0]), len(weights)).double()
    with torch.no_grad():
        loss.regressor.weight.copy_(torch.tensor(weights)[:, :, None, None])
        loss.regressor.bias.copy_(torch.tensor(biases))
    return loss


def one_channel(rows):
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def test_value_by_hand():
    student = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[0.0, 4.0]], [[1.0, 1.0]], [[-2.0, 0.0]]]], dtype=torch.float64)
    loss = make_loss([[1.0, -2.0], [0.0, 1.0], [2.0, 0.5]], [0.5, -1.0, 0.0])
    # predicted: 1−6+.5, 2+2+.5 | 3−1, −1−1 | 2+1.5, 4−.5
    errors = [-4.5 - 0.0, 4.5 - 4.0, 2.0 - 1.0, -2.0 - 1.0, 3.5 + 2.0, 3.5 - 0.0]
    expected = sum(error**2 for error in errors) / 6
    found = loss(student, teacher)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("student", "pooled"),
    [
        ([[1.0, 2.0], [3.0, 6.0]], [[3.0]]),
        ([[1.0, 2.0, 3.0, 4.0]] * 2 + [[5.0, 6.0, 7.0, 8.0]] * 2, [[1.5, 3.5], [5.5, 7.5]]),
        # 3 → 2: the windows overlap in the middle.
        ([[1.0, 2.0, 6.0]], [[1.5, 4.0]]),
        # Up: every pixel is repeated.
        ([[7.0]], [[7.0, 7.0], [7.0, 7.0]]),
        ([[1.0, 3.0]], [[1.0, 1.0, 3.0, 3.0]]),
        # Down in one direction, up in the other.
        ([[1.0], [3.0]], [[2.0, 2.0]]),
    ],
)
def test_the_students_map_is_pooled_to_the_teachers_size(student, pooled):
    teacher = one_channel(
        [[0.25 * i - j for i, _ in enumerate(row)] for j, row in enumerate(pooled)]
    )
    wanted = 2.0 * one_channel(pooled) - 1.0
    found = make_loss([[2.0]], [-1.0])(one_channel(student), teacher)
    assert found.item() == pytest.approx((wanted - teacher).square().mean().item(), rel=1e-12)
    assert make_loss([[2.0]], [-1.0])(one_channel(student), wanted).item() == 0.0


def test_gradients_match_finite_differences():
    loss = RegressorFeatureLoss(3, 2).double()
    student, teacher = normal(2, 3, 3, 3, seed=0).requires_grad_(), normal(2, 2, 2, 2, seed=1)
    weight, bias = (p.detach().clone().requires_grad_() for p in loss.parameters())

    def apply(features, weight, bias):
        values = {"regressor.weight": weight, "regressor.bias": bias}
        return torch.func.functional_call(loss, values, (features, teacher))

    assert torch.autograd.gradcheck(apply, (student, weight, bias))


def test_the_convolution_alone_is_trained_and_the_gradient_reaches_the_student():
    loss = build_feature_loss(3, 5)
    shapes = {name: tuple(parameter.shape) for name, parameter in loss.named_parameters()}
    assert shapes == {"regressor.weight": (5, 3, 1, 1), "regressor.bias": (5,)}
    student = normal(2, 3, 4, 4, seed=2, dtype=torch.float32).requires_grad_()
    loss(student, normal(2, 5, 2, 2, seed=3, dtype=torch.float32)).backward()
    for tensor in (student, *loss.parameters()):
        assert tensor.grad.abs().min() > 0


def test_a_regressor_can_learn_a_linear_map():
    student = normal(8, 3, 2, 2, seed=4)
    teacher = F.conv2d(student, normal(2, 3, 1, 1, seed=5), normal(2, seed=6))
    loss = make_loss([[0.0] * 3] * 2, [0.0] * 2)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    before = loss(student, teacher).item()
    for _ in range(200):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    assert loss(student, teacher).item() < 1e-3 * before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_squared_in_float32(dtype):
    loss = make_loss([[1.0]], [0.0]).to(dtype)
    student, teacher = (one_channel([[value]]).to(dtype) for value in (400.0, -400.0))
    found = loss(student, teacher)  # 800² is infinite in float16.
    assert found.dtype == torch.float32
    assert found.item() == 640_000.0


def test_extreme_features_stay_finite():
    loss = build_feature_loss(2, 2)
    student = torch.full((1, 2, 2, 2), 1e3, requires_grad=True)
    found = loss(student, torch.full((1, 2, 1, 1), -1e3))
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(student.grad).all()


def test_a_batch_is_the_mean_of_its_samples():
    student, teacher = normal(2, 3, 3, 3, seed=7), normal(2, 2, 2, 2, seed=8)
    loss = make_loss([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0]], [0.0, 0.1])
    singles = [loss(student[i : i + 1], teacher[i : i + 1]).item() for i in range(2)]
    assert singles[0] != pytest.approx(singles[1], rel=0.01)
    assert loss(student, teacher).item() == pytest.approx(sum(singles) / 2, rel=1e-12)


def test_the_teachers_whole_map_is_needed():
    """Its mean over the positions would be another target: exp3 must ask for the map."""
    assert FEATURES == "map"
    student, teacher = normal(2, 3, 4, 4, seed=9), normal(2, 2, 4, 4, seed=10)
    loss = make_loss([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0]], [0.0, 0.1])
    pooled = teacher.mean(dim=(2, 3), keepdim=True)
    assert loss(student, pooled).item() != pytest.approx(loss(student, teacher).item(), rel=0.05)


# The objective of all three experiments and the further methods.


def make_model(name, seed):
    return create_classifier(name, num_classes=NUM_CLASSES, image_size=IMAGE_SIZE, seed=seed)


@pytest.fixture
def student():
    return make_model("test_resnet", seed=1)


@pytest.fixture
def teacher():
    return make_model("test_efficientnet", seed=2)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(
        0, 256, (6, 3, IMAGE_SIZE, IMAGE_SIZE), generator=generator, dtype=torch.uint8
    )
    return images, torch.tensor([0, 1, 2, 3, 0, 1])


TRAIN = TrainSet(
    images=ResidentRows(torch.zeros(6, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)),
    labels=torch.zeros(6, dtype=torch.int64),
    samples=torch.arange(6),
)
"""Six labelled samples: one step an epoch."""


def build(method, student, teacher, tiny_values, *, run_seed=0, image_size=IMAGE_SIZE, **values):
    params = make_params({**tiny_values, "image_size": image_size, **values})
    return build_objective(
        method,
        params,
        student=student,
        teacher=teacher,
        train=TRAIN,
        image_size=image_size,
        seed=run_seed,
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_map_too_small_for_a_method_is_said_once(method, student, teacher, tiny_values, caplog):
    _warn_once.cache_clear()
    for seed in range(3):
        build(method, student, teacher, tiny_values, run_seed=seed)
    if method != "attention":
        assert caplog.messages == []
        return
    (message,) = caplog.messages
    assert message.startswith(
        "WARNING: attention: its feature term is constant for the 1 × 1 feature map"
    )
    assert f"of {teacher.name} at image_size 32" in message
    caplog.clear()
    build(method, student, teacher, tiny_values, image_size=2 * IMAGE_SIZE)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("exp1", ["loss", "label", "logit"]),
        ("exp2", ["loss", "label", "logit", "feature"]),
        ("exp3", ["loss", "label", "logit", "feature"]),
        ("attention", ["loss", "label", "logit", "feature"]),
        ("dist", ["loss", "label", "logit"]),
        ("dkd", ["loss", "label", "logit"]),
        ("exp3_scaled", ["loss", "label", "logit", "feature"]),
        ("similarity", ["loss", "label", "logit", "feature"]),
    ],
)
def test_the_loss_is_the_weighted_sum_of_named_terms(
    method, names, student, teacher, batch, tiny_values
):
    weights = {"label_weight": 0.3, "alpha": 0.5, "feature_weight": 0.7}
    weights["method_weights"] = dict.fromkeys(further_methods(), 0.7)
    objective = build(method, student, teacher, tiny_values, temperature=2.0, **weights)
    terms = objective(student, *batch, {})
    assert list(terms) == names
    assert all(term.shape == () for term in terms.values())
    # The teacher's map has one position here: all attention is on it, the student's as well.
    is_zero = {name for name, term in terms.items() if not term > 0}
    assert is_zero == ({"feature"} if method == "attention" else set())
    expected = 0.3 * terms["label"] + 0.5 * terms["logit"] + 0.7 * terms.get("feature", 0.0)
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "only"),
    [
        ({"label_weight": 1.0, "alpha": 0.0, "feature_weight": 0.0}, "label"),
        ({"label_weight": 0.0, "alpha": 1.0, "feature_weight": 0.0}, "logit"),
    ],
)
@pytest.mark.parametrize("method", ["exp2", "exp3", "exp3_scaled", "similarity"])
def test_a_weight_of_zero_takes_a_term_out_exactly(
    method, weights, only, student, teacher, batch, tiny_values
):
    weights = {**weights, "method_weights": dict.fromkeys(further_methods(), 0.0)}
    terms = build(method, student, teacher, tiny_values, **weights)(student, *batch, {})
    assert terms["feature"] > 0
    assert torch.equal(terms["loss"], terms[only])


@pytest.mark.parametrize("experiment", ["exp2", "exp3"])
def test_the_feature_term_is_that_of_the_two_models_maps(
    experiment, student, teacher, batch, tiny_values
):
    student.eval()
    objective = build(experiment, student, teacher, tiny_values)
    terms = objective(student, *batch, {})
    maps = student.outputs(batch[0]).features, teacher.outputs(batch[0]).features
    if experiment == "exp2":
        assert isinstance(objective.feature_loss, CosineFeatureLoss)
        expected = CosineFeatureLoss(96, 256)(*maps)
    else:
        conv = objective.feature_loss.regressor
        assert conv.weight.shape == (256, 96, 1, 1)
        expected = F.mse_loss(F.conv2d(maps[0], conv.weight, conv.bias), maps[1])
    assert terms["feature"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_is_out_of_reach_of_training(method, student, teacher, batch, tiny_values):
    teacher.train()
    before = copy.deepcopy(teacher.state_dict())
    student_before = copy.deepcopy(student.state_dict())
    assert any("running_mean" in name for name in before)
    objective = build(method, student, teacher, tiny_values)
    optimizer = make_optimizer((student, objective), learning_rate=0.01, weight_decay=0.1)
    objective.train()
    student.train()
    assert not any(module.training for module in teacher.modules())
    for _ in range(3):
        optimizer.zero_grad()
        objective(student, *batch, {})["loss"].backward()
        optimizer.step()
    assert not any(module.training for module in teacher.modules())
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    own = {id(parameter) for parameter in objective.parameters()}
    in_optimizer = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for parameter in teacher.parameters():
        assert id(parameter) not in own | in_optimizer
    assert len(own) == (2 if method in ("exp3", "exp3_scaled") else 0)
    assert own <= in_optimizer
    # The student did learn, its running statistics included.
    for name in ("conv1.0.weight", "bn1.running_mean", "fc.weight"):
        assert not torch.equal(student.state_dict()[f"net.{name}"], student_before[f"net.{name}"])


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_building_leaves_the_student_as_it_was(method, mode, student, teacher, tiny_values):
    student.train(mode)
    before = copy.deepcopy(student.state_dict())
    build(method, student, teacher, tiny_values)
    assert all(module.training == mode for module in student.modules())
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_the_regressor_repeats_from_the_seed_and_the_global_generator_is_left_alone(
    student, teacher, tiny_values
):
    def weight(seed, global_seed):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        objective = build("exp3", student, teacher, tiny_values, run_seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        return objective.feature_loss.regressor.weight

    first = weight(seed=5, global_seed=0)
    assert torch.equal(first, weight(seed=5, global_seed=99))
    assert not torch.equal(first, weight(seed=6, global_seed=0))


def test_the_objective_without_a_feature_loss_ignores_its_weight(student, teacher, batch):
    student.eval()
    losses = [
        DistillationObjective(
            teacher,
            logit_loss=KLLogitLoss(temperature=2.0),
            weights=Weights(label=0.5, logit=0.5, feature=feature_weight),
        )(student, *batch, {})["loss"]
        for feature_weight in (0.0, 100.0)
    ]
    assert torch.equal(*losses)


def test_every_experiment_has_the_loss_it_is_defined_by(student, teacher, tiny_values):
    assert EXPERIMENTS == ("exp1", "exp2", "exp3")
    built = [build(name, student, teacher, tiny_values) for name in EXPERIMENTS]
    assert all(type(objective.logit_loss) is KLLogitLoss for objective in built)
    kinds = [type(objective.feature_loss) for objective in built]
    assert kinds == [type(None), CosineFeatureLoss, RegressorFeatureLoss]
    modules = [importlib.import_module(module_name(name)) for name in EXPERIMENTS]
    found = [getattr(module, "FEATURES", None) for module in modules]
    assert found == [objective.features for objective in built] == [None, "pooled", "map"]
