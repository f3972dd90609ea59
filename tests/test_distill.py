"""Experiments with the teacher's outputs stored and live, their objectives and what they need."""

import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distillation.data.packed import PackedData, Split
from distillation.distill import (
    FEATURE_LOSS_MODULES,
    build_objective,
    describe_teacher_outputs,
    distill,
)
from distillation.models import create_classifier
from distillation.params import make_params
from distillation.runtime import CPU, Runtime
from distillation.targets import compute_targets, fingerprint_targets, load_targets
from distillation.training.arms import to_device
from distillation.training.loop import Recipe
from distillation.training.views import ViewSettings

EXPERIMENTS = sorted(FEATURE_LOSS_MODULES)
NUM_CLASSES = 3
SIZE = 20  # the teacher's last feature map is 2 × 2
VIEWS = ViewSettings(view_seed=5, crop_padding=2, horizontal_flip=True)
RECIPE = Recipe(
    epochs=3,
    batch_size=8,
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup_fraction=0.2,
    seed=1,
    views=VIEWS,
    num_views=2,
)
STEPS = 9  # of all epochs: of 21 labelled samples there are 3 batches of 7
BF16 = Runtime(device=torch.device("cpu"), precision="bf16")


def make_split(num_samples, seed):
    """Noise with one bright third of the picture a class."""
    random = np.random.default_rng(seed)
    labels = np.arange(num_samples) % NUM_CLASSES
    images = random.integers(0, 160, (num_samples, SIZE, SIZE, 3)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[6 * label : 6 * label + 6] += 90
    return Split(images=images, labels=labels)


DATA = PackedData(
    train=make_split(30, seed=1),
    validation=make_split(12, seed=2),
    test=make_split(6, seed=3),
    labeled=np.array([0, 1, 4, 5, 6, 7, 9, 11, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29]),
    class_names=("a", "b", "c"),
    source="noise",
    view_seed=VIEWS.view_seed,
    provenance={},
)
SETS = to_device(DATA, torch.device("cpu"))
CACHE_GB = {"map": 1.0, "pooled": 2 * 21 * (NUM_CLASSES + 256) * 2 / 1e9, "none": 0.0}


def make_student():
    return create_classifier(
        "test_resnet", num_classes=NUM_CLASSES, image_size=SIZE, seed=0, stem_stride=1
    )


def make_teacher(seed=7):
    """A teacher with outputs of ordinary size: its running statistics are those of the images."""
    teacher = create_classifier(
        "test_efficientnet", num_classes=NUM_CLASSES, image_size=SIZE, seed=seed, stem_stride=1
    )
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average over all batches, here of one
    with torch.no_grad():
        teacher.train()(torch.tensor(DATA.train.images).permute(0, 3, 1, 2))
        teacher.net.classifier.weight.mul_(10)
    return teacher.eval()


TEACHER = make_teacher()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Give a function that computes a teacher's outputs and opens them."""

    def build(plan, *, teacher=TEACHER, views=VIEWS, runtime=CPU):
        directory = tmp_path_factory.mktemp("stored") / "targets"
        shared = {"data": DATA, "views": views, "num_views": RECIPE.num_views, "runtime": runtime}
        found = compute_targets(teacher, SETS.train, directory, cache_gb=CACHE_GB[plan], **shared)
        assert found.features == plan
        return load_targets(
            directory,
            fingerprint=fingerprint_targets(teacher, **shared),
            train=SETS.train,
            device=torch.device("cpu"),
        )

    return build


@pytest.fixture(scope="module")
def stored(store):
    """Give a teacher's stored outputs for every plan, and none at all under `live`."""
    return {**{plan: store(plan) for plan in CACHE_GB}, "live": None}


@pytest.fixture(scope="module")
def objective_for(tiny_values):
    """Give a function that builds an experiment's objective."""

    def build(experiment, *, student=None, teacher=TEACHER, targets=None, **values):
        return build_objective(
            experiment,
            make_params({**tiny_values, **values}),
            student=student or make_student(),
            teacher=teacher,
            image_size=SIZE,
            targets=targets,
        )

    return build


@pytest.fixture(scope="module")
def train(objective_for):
    """Give a function that trains a student and gives the terms of its epochs and of its steps."""

    def run(experiment, targets, *, teacher=TEACHER, runtime=CPU, train_set=SETS.train):
        student, steps = make_student(), []
        objective = objective_for(experiment, student=student, teacher=teacher, targets=targets)
        compute = objective.forward

        def forward(*arguments):
            terms = compute(*arguments)
            steps.append({name: float(value.detach()) for name, value in terms.items()})
            return terms

        objective.forward = forward
        result = distill(
            student,
            objective,
            train=train_set,
            validation=SETS.validation,
            recipe=RECIPE,
            runtime=runtime,
            name=experiment,
            targets=targets,
        )
        assert len(steps) == STEPS
        return [record.terms for record in result.history], steps

    return run


@pytest.fixture(scope="module")
def trained(stored, train):
    """Give the terms of a training with what a plan stores, or `live`."""

    @functools.cache
    def run(experiment, plan):
        return train(experiment, stored[plan])

    return run


# Stored and live


def assert_epochs_agree(found, expected, *, rel):
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=rel)


@pytest.mark.parametrize("plan", CACHE_GB)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_stored_and_live_trainings_agree_to_rounding(experiment, plan, trained):
    (found, found_steps), (expected, expected_steps) = (
        trained(experiment, name) for name in (plan, "live")
    )
    names = {"loss", "label", "logit"} | ({"feature"} if experiment != "exp1" else set())
    assert found_steps[0].keys() == expected_steps[0].keys() == names
    assert found_steps[0] == pytest.approx(expected_steps[0], rel=2e-4)
    assert found_steps[0]["label"] == expected_steps[0]["label"]  # no teacher in it
    assert_epochs_agree(found, expected, rel=2e-3)
    # The rounding is there: the outputs were looked up and not computed again.
    assert found_steps[0]["logit"] != expected_steps[0]["logit"]


@pytest.mark.parametrize("change", ["view", "teacher"])
def test_other_outputs_would_be_noticed(change, store, trained, train):
    if change == "view":
        other = store("map", views=dataclasses.replace(VIEWS, view_seed=6))
    else:
        other = store("map", teacher=make_teacher(seed=8))
    for experiment in EXPERIMENTS:
        (_, found), (_, expected) = train(experiment, other), trained(experiment, "live")
        assert found[0]["label"] == expected[0]["label"]
        for term in found[0].keys() - {"label", "loss"}:
            assert found[0][term] != pytest.approx(expected[0][term], rel=5e-3)


def test_stored_and_live_trainings_agree_in_bf16(store, train):
    stored = store("map", runtime=BF16)
    for experiment in EXPERIMENTS:
        (found, found_steps), (expected, expected_steps) = (
            train(experiment, targets, runtime=BF16) for targets in (stored, None)
        )
        assert found_steps[0] == pytest.approx(expected_steps[0], rel=1e-2)
        assert_epochs_agree(found, expected, rel=5e-2)


def test_pooled_features_give_the_cosine_loss_that_the_map_gives(trained):
    (from_map, map_steps), (from_pooled, pooled_steps) = (
        trained("exp2", plan) for plan in ("map", "pooled")
    )
    assert pooled_steps[0]["logit"] == map_steps[0]["logit"]  # to the bit: the same logits
    assert pooled_steps[0]["feature"] == pytest.approx(map_steps[0]["feature"], rel=1e-4)
    assert_epochs_agree(from_pooled, from_map, rel=2e-3)


def count_calls(teacher, monkeypatch):
    """Count the teacher's forward passes, whichever way it is called."""
    calls = []

    def counted(function):
        def run(images):
            calls.append(len(images))
            return function(images)

        return run

    monkeypatch.setattr(teacher, "forward", counted(teacher.forward))
    monkeypatch.setattr(teacher, "outputs", counted(teacher.outputs))
    return calls


STORED = {
    "exp1": {"map", "pooled", "none"},
    "exp2": {"map", "pooled"},
    "exp3": {"map"},
}


@pytest.mark.parametrize("plan", [*CACHE_GB, "live"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_teacher_runs_only_for_what_is_not_stored(
    experiment, plan, stored, train, objective_for, monkeypatch
):
    teacher, targets = make_teacher(), stored[plan]
    calls = count_calls(teacher, monkeypatch)
    train(experiment, targets, teacher=teacher)
    described = describe_teacher_outputs(objective_for(experiment), targets)
    if plan in STORED[experiment]:
        assert calls == []
        assert described == "stored"
    else:  # once a step, after a look at its features' shape where nothing knows it
        asks_shape = plan == "live" and experiment != "exp1"
        assert calls == [1] * asks_shape + [7] * STEPS
        assert described == "live"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_with_everything_stored_a_teacher_that_fails_is_not_noticed(
    experiment, stored, train, trained, monkeypatch
):
    teacher = make_teacher()

    def fail(*arguments):
        raise AssertionError("the teacher was called")

    for name in ("forward", "outputs", "feature_shape"):
        monkeypatch.setattr(teacher, name, fail)
    for name in ("forward", "forward_features", "forward_head"):
        monkeypatch.setattr(teacher.net, name, fail)
    assert train(experiment, stored["map"], teacher=teacher) == trained(experiment, "map")
    with pytest.raises(AssertionError, match="the teacher was called"):
        train(experiment, None, teacher=teacher)


def test_outputs_in_the_set_itself_are_not_used(stored, train, trained):
    """Which outputs are used is said by `targets`."""
    train_set = dataclasses.replace(SETS.train, targets=stored["map"])
    assert train("exp1", None, train_set=train_set) == trained("exp1", "live")


# The objective


def batch_of(size=5):
    images = torch.tensor(DATA.train.images[:size]).permute(0, 3, 1, 2)
    return images, torch.tensor(DATA.train.labels[:size])


def by_hand(experiment, student, teacher, objective, *, temperature):
    """Compute the terms in float64 from the formulas in the documentation."""
    images, labels = batch_of()
    with torch.no_grad():
        (logits, features), (teacher_logits, teacher_features) = (
            (outputs.logits.double(), outputs.features.double())
            for outputs in (student.outputs(images), teacher.outputs(images))
        )
    log_q = (logits / temperature).log_softmax(1)
    log_p = (teacher_logits / temperature).log_softmax(1)
    terms = {
        "label": -logits.log_softmax(1)[range(5), labels].mean(),
        "logit": temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean(),
    }
    if experiment == "exp2":
        a, b = features.mean((2, 3))[:, :96], teacher_features.mean((2, 3))[:, :96]
        terms["feature"] = (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()
    elif experiment == "exp3":
        regressor = objective.feature_loss.regressor
        weight, bias = regressor.weight[:, :, 0, 0].double(), regressor.bias.double()
        predicted = torch.einsum("oc,bchw->bohw", weight, features) + bias[:, None, None]
        predicted = F.adaptive_avg_pool2d(predicted, teacher_features.shape[2:])
        terms["feature"] = (predicted - teacher_features).square().mean()
    return {name: value.item() for name, value in terms.items()}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_loss_is_the_weighted_sum_of_its_terms(experiment, objective_for):
    student, teacher = make_student().eval(), make_teacher()
    weights = {"label_weight": 0.3, "alpha": 0.7, "feature_weight": 2.5}
    objective = objective_for(
        experiment, student=student, teacher=teacher, temperature=3.0, **weights
    )
    terms = objective(student, *batch_of(), {})
    expected = by_hand(experiment, student, teacher, objective, temperature=3.0)
    found = {name: value.item() for name, value in terms.items()}
    loss = found.pop("loss")
    assert found == pytest.approx(expected, rel=1e-4)
    total = sum(
        weight * expected.get(name, 0.0)
        for name, weight in zip(("label", "logit", "feature"), weights.values(), strict=True)
    )
    assert loss == pytest.approx(total, rel=1e-4)
    assert all(value.shape == () for value in terms.values())


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_loss_reaches_the_student_and_not_the_teacher(experiment, objective_for):
    student, teacher = make_student(), make_teacher()
    teacher.train()
    for parameter in teacher.parameters():
        parameter.requires_grad_(True)
    objective = objective_for(experiment, student=student, teacher=teacher)
    objective.train()
    objective(student, *batch_of(), {})["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    # The teacher is saved with no state and moves with no objective.
    expected = {"feature_loss.regressor.weight", "feature_loss.regressor.bias"}
    assert set(objective.state_dict()) == (expected if experiment == "exp3" else set())


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_batch_runs_the_student_once_and_outputs_that_are_given_are_used(
    experiment, objective_for, monkeypatch
):
    student, teacher = make_student(), make_teacher()
    objective = objective_for(experiment, student=student, teacher=teacher)
    images, labels = batch_of()
    with torch.no_grad():
        given = teacher.outputs(images)._asdict()
    student_calls, teacher_calls = (count_calls(model, monkeypatch) for model in (student, teacher))
    needs = {"logits"} if experiment == "exp1" else {"logits", "features"}
    expected = None
    for parts in (set(), {"logits"}, {"logits", "features"}):
        targets = {name: given[name] for name in parts}
        terms = {
            name: value.item()
            for name, value in objective(student, images, labels, targets).items()
        }
        expected = expected or terms
        assert terms == pytest.approx(expected, rel=1e-5)
        assert (student_calls, teacher_calls) == ([5], [] if needs <= parts else [5])
        student_calls.clear()
        teacher_calls.clear()
    # Logits that are known are not replaced where the teacher runs for its features alone.
    uniform = objective(student, images, labels, {"logits": torch.zeros(5, NUM_CLASSES)})
    assert uniform["logit"].item() != pytest.approx(expected["logit"], rel=0.05)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_teacher_runs_without_gradients(experiment, objective_for):
    teacher, modes = make_teacher(), []
    teacher.net.classifier.register_forward_hook(
        lambda *arguments: modes.append(torch.is_grad_enabled())
    )
    objective = objective_for(experiment, teacher=teacher)
    modes.clear()
    terms = objective(make_student(), *batch_of(), {})
    assert modes == [False]
    assert all(value.requires_grad for value in terms.values())


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_settings_tell_objectives_apart(experiment, objective_for):
    def settings(**values):
        found = objective_for(experiment, **values).settings()
        return json.dumps(found, sort_keys=True)  # they become part of a fingerprint

    changes = [{"label_weight": 0.2}, {"alpha": 0.8}, {"temperature": 2.0}]
    if experiment != "exp1":
        changes.append({"feature_weight": 0.5})
    found = [settings(), *(settings(**change) for change in changes)]
    assert len(set(found)) == len(found)
    assert settings() == settings(seed=3, learning_rate=1.0, num_views=9)


def test_settings_tell_experiments_apart_and_leave_out_what_has_no_influence(objective_for):
    found = [objective_for(experiment).settings() for experiment in EXPERIMENTS]
    assert all(a != b for a, b in itertools.combinations(found, 2))
    assert objective_for("exp1", feature_weight=7.0).settings() == found[0]


# The regressor


def regressor_of(objective):
    return torch.cat([parameter.detach().flatten() for parameter in objective.parameters()])


def test_the_regressor_is_initialised_from_the_seed_alone(objective_for, stored):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = regressor_of(objective_for("exp3", seed=0))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(regressor_of(objective_for("exp3", seed=0)), first)
    other = make_teacher(seed=8)
    assert torch.equal(regressor_of(objective_for("exp3", seed=0, teacher=other)), first)
    for plan in CACHE_GB:
        found = regressor_of(objective_for("exp3", seed=0, targets=stored[plan]))
        assert torch.equal(found, first)
    seeds = [regressor_of(objective_for("exp3", seed=seed)) for seed in range(4)]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(seeds, 2))


def test_the_regressor_fits_the_features_and_is_the_only_one_with_parameters(objective_for, stored):
    for targets in (None, stored["map"]):
        objective = objective_for("exp3", targets=targets)
        assert objective.feature_loss.regressor.weight.shape == (256, 96, 1, 1)
        assert objective.features == "map"
    for experiment, features in (("exp1", None), ("exp2", "pooled")):
        objective = objective_for(experiment)
        assert objective.features == features
        assert list(objective.parameters()) == []


def test_building_an_objective_leaves_the_student_as_it_was(objective_for):
    for is_training in (True, False):
        student = make_student().train(is_training)
        before = {key: value.clone() for key, value in student.state_dict().items()}
        objective_for("exp3", student=student)
        assert all(module.training is is_training for module in student.modules())
        assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
