"""Where a term is a constant its method is refused, and where it is not, it is not."""

import importlib

import numpy as np
import pytest
import torch

from distillation.base.methods import EXPERIMENTS, further_methods, module_name
from distillation.base.params import ParamError, make_params
from distillation.data.rows import make_rows
from distillation.distilling.limits import check_limits
from distillation.distilling.objective import build_objective
from distillation.losses.logits import standardize
from distillation.models.creation import create_classifier
from distillation.training.batches import TrainSet

METHODS = (*EXPERIMENTS, *further_methods())
SIZE = 16


def check(method, *, num_classes=3, batch_size=3, standardize_logits=False):
    check_limits(
        method,
        importlib.import_module(module_name(method)),
        num_classes=num_classes,
        batch_size=batch_size,
        standardize_logits=standardize_logits,
    )


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("dkd", {"num_classes": 2}, r"^methods: got dkd, but the data set has 2 classes, and there "
         r"its second term is always 0, .*; allowed: methods that bear it, or at least 3 classes$"),
        ("dist", {"num_classes": 2}, r"^methods: got dist, but the data set has 2 classes, and "
         r"there the correlation over a sample's classes is always 1 or −1, .* at least 3 class"),
        ("dist", {"batch_size": 2}, r"^batch_size: dist got batches of 2, and there the "
         r"correlation over a class's samples is a constant, .*: batches of at least 3 images$"),
        ("similarity", {"batch_size": 1}, r"^batch_size: similarity got batches of 1, and there "
         r"are no two images to compare, .*; allowed for it: batches of at least 2 images$"),
        ("exp1", {"num_classes": 2, "standardize_logits": True}, r"^standardize_logits: got true, "
         r"but of 2 classes one has the standardised logit 1 and the other −1 .*: false$"),
    ],
)  # fmt: skip
def test_a_constant_is_refused_in_a_sentence(method, values, message):
    with pytest.raises(ParamError, match=message) as caught:
        check(method, **values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_refused_teaches(method):
    """Every method bears the fewest classes and images it says: its terms have a gradient."""
    module = importlib.import_module(module_name(method))
    num_classes = getattr(module, "MIN_CLASSES", 2)
    batch_size = getattr(module, "MIN_BATCH_SIZE", 1)
    check(method, num_classes=num_classes, batch_size=batch_size)
    if hasattr(module, "build_logit_loss"):
        loss = module.build_logit_loss(temperature=2.0, weight=1.0)
        student = normal(batch_size, num_classes, seed=0).requires_grad_()
        teacher = normal(batch_size, num_classes, seed=1)
        value = loss(student, teacher, torch.zeros(batch_size, dtype=torch.int64))
        (gradient,) = torch.autograd.grad(value, student)
        assert gradient.abs().max() > 1e-4
    if hasattr(module, "build_feature_loss"):
        loss = module.build_feature_loss(4, 5)
        student = normal(batch_size, 4, 2, 2, seed=0).requires_grad_()
        (gradient,) = torch.autograd.grad(
            loss(student, normal(batch_size, 5, 2, 2, seed=1)), student
        )
        assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize(
    ("method", "shape"), [("dist", (2, 5)), ("dist", (1, 5)), ("dist", (6, 2))]
)
def test_the_correlation_that_is_refused_has_no_gradient(method, shape):
    from distillation.losses.dist import _one_minus_correlation

    outputs = normal(*shape, seed=0).softmax(dim=1)
    student = (outputs if shape[1] == 2 else outputs.T).clone().requires_grad_()
    teacher = normal(*student.shape, seed=1).softmax(dim=1)
    (gradient,) = torch.autograd.grad(_one_minus_correlation(student, teacher), student)
    assert gradient.abs().max() < 1e-5


def test_two_standardised_logits_are_constants():
    logits = (5 * normal(9, 2, seed=0)).requires_grad_()
    values = standardize(logits)
    assert values.detach().abs().sub(1).abs().max() < 1e-5
    (gradient,) = torch.autograd.grad((values * normal(9, 2, seed=1)).sum(), logits)
    assert gradient.abs().max() < 1e-4


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("dkd", {}, "^methods: got dkd, but the data set has 2 classes"),
        ("exp2", {"standardize_logits": True}, "^standardize_logits: got true"),
        ("similarity", {"batch_size": 1}, "^batch_size: similarity got batches of 1"),
        ("exp1", {}, None),
        ("exp1", {"batch_size": 1}, None),
    ],
)
def test_the_objective_is_where_it_is_refused(tiny_values, method, values, message):
    images = np.zeros((6, SIZE, SIZE, 3), dtype=np.uint8)
    train = TrainSet(
        images=make_rows(images, torch.device("cpu")),
        labels=torch.arange(6) % 2,
        samples=torch.arange(6),
    )
    models = {
        role: create_classifier("test_resnet", num_classes=2, image_size=SIZE, seed=seed)
        for seed, role in enumerate(("student", "teacher"))
    }

    def build():
        params = make_params({**tiny_values, **values})
        return build_objective(method, params, **models, train=train, image_size=SIZE, seed=0)

    if message is None:
        build()
        return
    with pytest.raises(ParamError, match=message):
        build()
