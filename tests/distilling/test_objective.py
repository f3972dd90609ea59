"""Methods with the teacher's outputs stored and live, their objectives and what they need."""

import dataclasses
import functools
import importlib
import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distillation.base.methods import EXPERIMENTS, MethodError, further_methods, module_name
from distillation.base.params import ParamError, make_params
from distillation.data.prepared import PreparedData
from distillation.distilling.objective import (
    DistillationObjective,
    Weights,
    build_objective,
)
from distillation.distilling.storing import store_teacher_outputs
from distillation.distilling.students import distillation_training
from distillation.distilling.teacher_outputs import (
    fingerprint_teacher_outputs,
    load_teacher_outputs,
)
from distillation.losses.logits import KLLogitLoss
from distillation.models.creation import create_classifier
from distillation.training.labels import UNLABELED, MixedLabels, label_loss
from distillation.training.loop import fit
from distillation.training.runtime import CPU, Runtime
from distillation.training.setup import Setup, to_device
from distillation.training.supervised import LabelObjective, control_training, teacher_training
from distillation.training.values import CODE, Recipe, Training
from distillation.training.views import ViewSettings
from tests.helpers.thirds import NUM_CLASSES, SIZE, make_split

METHODS = (*EXPERIMENTS, *further_methods())
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
RAMP_STEPS = 3  # 0.3 of them, rounded
BF16 = Runtime(device=torch.device("cpu"), precision="bf16")


DATA = PreparedData(
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
        found = store_teacher_outputs(
            teacher, SETS.train, directory, cache_gb=CACHE_GB[plan], **shared
        )
        assert found.features == plan
        return load_teacher_outputs(
            directory,
            fingerprint=fingerprint_teacher_outputs(teacher, **shared),
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
    """Give a function that builds a method's objective, for the recipe here."""
    recipe = {"epochs": RECIPE.epochs, "batch_size": RECIPE.batch_size}

    def build(
        method,
        *,
        student=None,
        teacher=TEACHER,
        train=SETS.train,
        run_seed=RECIPE.seed,
        stored=None,
        **values,
    ):
        return build_objective(
            method,
            make_params({**tiny_values, **recipe, **values}),
            student=student or make_student(),
            teacher=teacher,
            train=train,
            image_size=SIZE,
            seed=run_seed,
            teacher_shape=None if stored is None else stored.plan.feature_shape,
        )

    return build


def make_training(student, objective, outputs=None):
    return Training(
        name="x",
        model=student,
        objective=objective,
        train=dataclasses.replace(SETS.train, teacher_outputs=outputs),
        validation=SETS.validation,
        recipe=RECIPE,
    )


@pytest.fixture(scope="module")
def train(objective_for):
    """Give a function that trains a student and gives the terms of its epochs and of its steps."""

    def run(method, stored, *, teacher=TEACHER, runtime=CPU):
        student, steps = make_student(), []
        objective = objective_for(method, student=student, teacher=teacher, stored=stored)
        compute = objective.forward

        def forward(*arguments):
            terms = compute(*arguments)
            steps.append({name: float(value.detach()) for name, value in terms.items()})
            return terms

        objective.forward = forward
        outputs = None if stored is None else stored.select(objective.features)
        result = fit(make_training(student, objective, outputs), runtime=runtime)
        assert len(steps) == STEPS
        return [record.terms for record in result.history], steps

    return run


@pytest.fixture(scope="module")
def training_for(tiny_values):
    """Give a function that makes a method's training as a stage does."""
    values = {"student": "test_resnet", "student_stem_stride": 1, "seeds": [1], "num_views": 2}
    params = make_params({**tiny_values, **values})

    def build(method, stored):
        setup = Setup(params=params, data=DATA, sets=SETS, runtime=CPU)
        return distillation_training(method, setup, 1, teacher=TEACHER, stored=stored)

    return build


def test_all_trainings_have_their_own_splits_and_one_recipe(training_for, tiny_values):
    for name in ("validation", "test"):
        assert getattr(SETS, name).labels.tolist() == getattr(DATA, name).labels.tolist()
    values = {"student": "test_resnet", "student_stem_stride": 1, "seeds": [1], "num_views": 2}
    params = make_params({**tiny_values, **values})
    setup = Setup(params=params, data=DATA, sets=SETS, runtime=CPU)
    control = control_training(setup, 1)
    assert teacher_training(setup, 0).validation is control.validation is SETS.validation
    weights = control.model.state_dict()
    for method in METHODS:
        training = training_for(method, None)
        assert training.validation is SETS.validation
        assert training.recipe == control.recipe
        assert training.code == (*CODE, "distilling", "losses/logits.py", f"losses/{method}.py")
        found = training.model.state_dict()
        assert all(torch.equal(found[key], value) for key, value in weights.items())


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed_for_the_control_and_for_students_alike(tiny_values, smoothing):
    student, images = make_student(), torch.tensor(DATA.train.images[:8]).permute(0, 3, 1, 2)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    expected = label_loss(student(images).float(), labels, smoothing=smoothing).detach()
    assert (expected == label_loss(student(images).float(), labels, smoothing=0.0)) == (
        smoothing == 0.0
    )
    control = LabelObjective(smoothing=smoothing)(student, images, labels, {})
    assert float(control["loss"]) == pytest.approx(float(expected), rel=1e-6)
    params = make_params({**tiny_values, "label_smoothing": smoothing})
    objective = build_objective(
        "exp1", params, student=student, teacher=TEACHER, train=SETS.train, image_size=SIZE, seed=0
    )
    terms = objective(student, images, labels, {"logits": TEACHER(images)})
    assert float(terms["label"]) == pytest.approx(float(expected), rel=1e-6)


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


@pytest.fixture(scope="module")
def teacher_calls():
    """Collect how many images each forward pass of the teacher had, by method and plan."""
    return {}


@pytest.fixture(scope="module")
def trained(stored, train, teacher_calls):
    """Give the terms of a training with what a plan stores, or `live`."""

    @functools.cache
    def run(method, plan):
        with pytest.MonkeyPatch.context() as patched:
            teacher_calls[method, plan] = count_calls(TEACHER, patched)
            return train(method, stored[plan])

    return run


# Stored and live

STORED = {
    "exp1": {"map", "pooled", "none"},
    "exp2": {"map", "pooled"},
    "exp3": {"map"},
    "attention": {"map"},
    "dist": {"map", "pooled", "none"},
    "dkd": {"map", "pooled", "none"},
    "exp3_scaled": {"map"},
    "similarity": {"map"},
}
"""With which plans all that a method needs of the teacher is stored."""

LOGIT_METHODS = {method for method, plans in STORED.items() if "none" in plans}
REGRESSOR_METHODS = ("exp3", "exp3_scaled")


def test_every_method_is_tested_here():
    assert tuple(STORED) == METHODS


def assert_epochs_agree(found, expected, *, rel):
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=rel)


@pytest.mark.parametrize("plan", CACHE_GB)
@pytest.mark.parametrize("method", METHODS)
def test_stored_and_live_trainings_agree_to_rounding(method, plan, trained):
    (found, found_steps), (expected, expected_steps) = (
        trained(method, name) for name in (plan, "live")
    )
    names = {"loss", "label", "logit"} | (set() if method in LOGIT_METHODS else {"feature"})
    assert found_steps[0].keys() == expected_steps[0].keys() == names
    assert found_steps[0] == pytest.approx(expected_steps[0], rel=2e-4)
    assert found_steps[0]["label"] == expected_steps[0]["label"]  # no teacher in it
    # Correlations within a batch of 7 are sensitive: the later steps drift further apart.
    assert_epochs_agree(found, expected, rel=1e-2 if method == "dist" else 2e-3)
    # The rounding is there: the outputs were looked up and not computed again.
    assert found_steps[0]["logit"] != expected_steps[0]["logit"]


@pytest.mark.parametrize("change", ["view", "teacher"])
def test_other_outputs_would_be_noticed(change, store, trained, train):
    if change == "view":
        other = store("map", views=dataclasses.replace(VIEWS, view_seed=6))
    else:
        other = store("map", teacher=make_teacher(seed=8))
    for method in METHODS:
        (_, found), (_, expected) = train(method, other), trained(method, "live")
        assert found[0]["label"] == expected[0]["label"]
        for term in found[0].keys() - {"label", "loss"}:
            # A random regressor's unit vectors are at right angles to any teacher's, nearly.
            rel = 2e-3 if (method, term) == ("exp3_scaled", "feature") else 5e-3
            assert found[0][term] != pytest.approx(expected[0][term], rel=rel)


def test_stored_and_live_trainings_agree_in_bf16(store, train):
    stored = store("map", runtime=BF16)
    for method in METHODS:
        (found, found_steps), (expected, expected_steps) = (
            train(method, targets, runtime=BF16) for targets in (stored, None)
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


@pytest.mark.parametrize("plan", [*CACHE_GB, "live"])
@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_runs_only_for_what_is_not_stored(
    method, plan, stored, trained, teacher_calls, training_for
):
    trained(method, plan)
    calls = teacher_calls[method, plan]
    described = training_for(method, stored[plan]).teacher_outputs
    if plan in STORED[method]:
        assert calls == []
        assert described == "stored"
    else:  # once a step, after a look at its features' shape where nothing knows it
        asks_shape = plan == "live" and method not in LOGIT_METHODS
        assert calls == [1] * asks_shape + [7] * STEPS
        assert described == "live"


@pytest.mark.parametrize("method", METHODS)
def test_with_everything_stored_a_teacher_that_fails_is_not_noticed(
    method, stored, train, trained, monkeypatch
):
    teacher = make_teacher()

    def fail(*arguments):
        raise AssertionError("the teacher was called")

    for name in ("forward", "outputs", "feature_shape"):
        monkeypatch.setattr(teacher, name, fail)
    for name in ("forward", "forward_features", "forward_head"):
        monkeypatch.setattr(teacher.net, name, fail)
    assert train(method, stored["map"], teacher=teacher) == trained(method, "map")
    with pytest.raises(AssertionError, match="the teacher was called"):
        train(method, None, teacher=teacher)


# The objective


def batch_of(size=5):
    images = torch.tensor(DATA.train.images[:size]).permute(0, 3, 1, 2)
    return images, torch.tensor(DATA.train.labels[:size])


WEIGHTS = {"label_weight": 0.3, "alpha": 0.7, "feature_weight": 2.5}
METHOD_WEIGHTS = {method: 1.5 + i for i, method in enumerate(further_methods())}


def feature_weight_of(method):
    """What the feature term weighs with those weights, at the end of its ramp."""
    if method in LOGIT_METHODS:
        return 0.0
    return METHOD_WEIGHTS.get(method, WEIGHTS["feature_weight"])


def standardize_by_hand(logits):
    return (logits - logits.mean(1, keepdim=True)) / logits.std(1, correction=0, keepdim=True)


def by_hand(method, student, teacher, objective, *, temperature, standardizes=False):
    """Compute the terms in float64: the experiments' from the formulas in the documentation."""
    images, labels = batch_of()
    with torch.no_grad():
        (logits, features), (teacher_logits, teacher_features) = (
            (outputs.logits.double(), outputs.features.double())
            for outputs in (student.outputs(images), teacher.outputs(images))
        )
    terms = {"label": -logits.log_softmax(1)[range(5), labels].mean()}
    if standardizes:
        logits, teacher_logits = standardize_by_hand(logits), standardize_by_hand(teacher_logits)
    log_q = (logits / temperature).log_softmax(1)
    log_p = (teacher_logits / temperature).log_softmax(1)
    terms["logit"] = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()
    module = importlib.import_module(module_name(method))
    if method == "exp2":
        a, b = features.mean((2, 3))[:, :96], teacher_features.mean((2, 3))[:, :96]
        terms["feature"] = (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()
    elif method == "exp3":
        regressor = objective.feature_loss.regressor
        weight, bias = regressor.weight[:, :, 0, 0].double(), regressor.bias.double()
        predicted = torch.einsum("oc,bchw->bohw", weight, features) + bias[:, None, None]
        predicted = F.adaptive_avg_pool2d(predicted, teacher_features.shape[2:])
        terms["feature"] = (predicted - teacher_features).square().mean()
    elif method in METHOD_WEIGHTS and method in LOGIT_METHODS:
        # The formulas are tested with the losses: here, what each is given.
        loss = module.build_logit_loss(temperature=temperature, weight=METHOD_WEIGHTS[method])
        terms["logit"] = loss(logits, teacher_logits, labels)
    elif method in METHOD_WEIGHTS:
        loss = module.build_feature_loss(features.shape[1], teacher_features.shape[1]).double()
        loss.load_state_dict(objective.feature_loss.state_dict())
        terms["feature"] = loss(features, teacher_features)
    return {name: value.item() for name, value in terms.items()}


@pytest.mark.parametrize("standardizes", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_weighted_sum_of_its_terms(method, standardizes, objective_for):
    student, teacher = make_student().eval(), make_teacher()
    objective = objective_for(
        method,
        student=student,
        teacher=teacher,
        temperature=3.0,
        standardize_logits=standardizes,
        method_weights=METHOD_WEIGHTS,
        **WEIGHTS,
    )
    terms = objective(student, *batch_of(), {})
    expected = by_hand(
        method, student, teacher, objective, temperature=3.0, standardizes=standardizes
    )
    found = {name: value.item() for name, value in terms.items()}
    loss = found.pop("loss")
    assert found == pytest.approx(expected, rel=1e-4)
    feature_weight = feature_weight_of(method)
    if method == "exp3_scaled":
        feature_weight /= RAMP_STEPS  # in the first step
    total = (
        0.3 * expected["label"]
        + 0.7 * expected["logit"]
        + feature_weight * expected.get("feature", 0.0)
    )
    assert loss == pytest.approx(total, rel=1e-4)
    assert all(value.shape == () for value in terms.values())


@pytest.mark.parametrize("labeled_share", [1.0, 0.6])
@pytest.mark.parametrize("method", ["exp1", "dkd"])
def test_mixed_views_have_both_labels_in_the_label_term_alone(method, labeled_share, objective_for):
    student, teacher = make_student().eval(), make_teacher()
    objective = objective_for(method, student=student, teacher=teacher)
    objective.labeled_share = labeled_share
    images, own = batch_of()
    partner, shares = own.roll(1), torch.tensor([0.5, 0.6, 0.75, 1.0, 0.9])
    if labeled_share < 1.0:
        own, partner = own.clone(), partner.clone()
        own[[1, 2]] = partner[[2, 3]] = UNLABELED
    found = objective(student, images, MixedLabels(own, partner, shares), {})
    with torch.no_grad():
        log_probs = student(images).double().log_softmax(1)
    expected = 0.0
    for row in range(5):
        for label, share in ((own[row], shares[row]), (partner[row], 1 - shares[row])):
            if label != UNLABELED:
                expected -= float(share) * float(log_probs[row, label])
    assert found["label"].item() == pytest.approx(expected / (5 * labeled_share), rel=1e-5)
    plain = objective(student, images, own, {})
    assert torch.equal(found["logit"], plain["logit"])  # DKD's target is the sample's own class


@pytest.mark.parametrize("method", METHODS)
def test_both_models_logits_are_standardized_and_before_the_logit_loss_alone(method, objective_for):
    student, teacher = make_student().eval(), make_teacher()
    images, labels = batch_of()
    plain, standardized = (
        objective_for(method, student=student, teacher=teacher, standardize_logits=value)
        for value in (False, True)
    )
    given = []
    plain.logit_loss.register_forward_pre_hook(lambda _, arguments: given.append(arguments))
    standardized.logit_loss.register_forward_pre_hook(lambda _, arguments: given.append(arguments))
    with torch.no_grad():
        stored = teacher.outputs(images)._asdict()
    for targets in ({}, stored):  # live and stored outputs alike
        given.clear()
        mine = plain(student, images, labels, targets)
        theirs = standardized(student, images, labels, targets)
        for name in ("label", "feature"):
            assert (name in mine) == (name in theirs)
            assert name not in mine or torch.equal(mine[name], theirs[name])
        assert mine["logit"].item() != pytest.approx(theirs["logit"].item(), rel=1e-3)
        for raw, scaled in zip(given[0][:2], given[1][:2], strict=True):
            assert (raw.std(1, correction=0) - 1).abs().min() > 0.01
            torch.testing.assert_close(scaled, standardize_by_hand(raw), rtol=1e-4, atol=1e-5)
        assert torch.equal(given[0][2], labels)
        assert torch.equal(given[1][2], labels)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_reaches_the_student_and_not_the_teacher(method, objective_for):
    student, teacher = make_student(), make_teacher()
    teacher.train()
    for parameter in teacher.parameters():
        parameter.requires_grad_(True)
    objective = objective_for(method, student=student, teacher=teacher)
    objective.train()
    objective(student, *batch_of(), {})["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    # The teacher is saved with no state and moves with no objective.
    expected = {"num_steps"}
    if method in REGRESSOR_METHODS:
        expected |= {"feature_loss.regressor.weight", "feature_loss.regressor.bias"}
    assert set(objective.state_dict()) == expected


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_runs_the_student_once_and_outputs_that_are_given_are_used(
    method, objective_for, monkeypatch
):
    student, teacher = make_student(), make_teacher()
    objective = objective_for(method, student=student, teacher=teacher)
    objective.eval()  # no step of a ramp: every call is to give the same
    images, labels = batch_of()
    with torch.no_grad():
        given = teacher.outputs(images)._asdict()
    student_calls, teacher_calls = (count_calls(model, monkeypatch) for model in (student, teacher))
    needs = {"logits"} if method in LOGIT_METHODS else {"logits", "features"}
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


@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_runs_without_gradients(method, objective_for):
    teacher, modes = make_teacher(), []
    teacher.net.classifier.register_forward_hook(
        lambda *arguments: modes.append(torch.is_grad_enabled())
    )
    objective = objective_for(method, teacher=teacher)
    modes.clear()
    terms = objective(make_student(), *batch_of(), {})
    assert modes == [False]
    assert all(value.requires_grad for value in terms.values())


FEW_LABELS = dataclasses.replace(SETS.train, samples=torch.arange(30))
"""All images, of which 21 have a label."""


@pytest.mark.parametrize("method", METHODS)
def test_settings_tell_objectives_apart(method, objective_for):
    def settings(**values):
        found = objective_for(method, **values).settings()
        return json.dumps(found, sort_keys=True)  # they become part of a fingerprint

    def with_weights(**weights):
        return settings(method_weights={**METHOD_WEIGHTS, **weights})

    changes = [
        {"label_weight": 0.2},
        {"alpha": 0.8},
        {"temperature": 2.0},
        {"standardize_logits": True},
        {"label_smoothing": 0.1},
        {"train": FEW_LABELS},
    ]
    if method in ("exp2", "exp3"):
        changes.append({"feature_weight": 0.5})
    if method == "exp3_scaled":  # another length, another ramp
        changes.append({"epochs": 7})
    found = [settings(), *(settings(**change) for change in changes)]
    if method in METHOD_WEIGHTS:
        found += [with_weights(), with_weights(**{method: 0.25})]
    assert len(set(found)) == len(found)
    # What has no influence is left out.
    assert settings() == settings(seed=3, learning_rate=1.0, num_views=9, run_seed=4, ema_decay=0.9)
    if method not in ("exp2", "exp3"):
        assert settings() == settings(feature_weight=7.0)
    others = {name: 0.25 for name in METHOD_WEIGHTS if name != method}
    assert with_weights() == with_weights(**others)


def test_settings_tell_methods_apart(objective_for):
    one = {"feature_weight": 1.0, "method_weights": dict.fromkeys(METHOD_WEIGHTS, 1.0)}
    found = [objective_for(method, **one).settings() for method in METHODS]
    assert all(a != b for a, b in itertools.combinations(found, 2))


# The weight of a method


@pytest.mark.parametrize("method", further_methods())
def test_a_method_without_a_weight_is_refused(method, objective_for):
    weights = {name: weight for name, weight in METHOD_WEIGHTS.items() if name != method}
    with pytest.raises(ParamError, match=rf"^method_weights: missing {method}; allowed: a number"):
        objective_for(method, method_weights=weights)
    for experiment in EXPERIMENTS:
        objective_for(experiment, method_weights={})
    assert objective_for(method, method_weights={method: 0}) is not None


def test_a_method_that_is_not_there_is_refused(objective_for):
    with pytest.raises(MethodError, match=r"^method: got 'dkt'; did you mean dkd\?$"):
        objective_for("dkt")


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_is_the_feature_terms_or_a_setting_of_the_logit_loss(method, objective_for):
    objective = objective_for(method, method_weights=METHOD_WEIGHTS, temperature=3.0, **WEIGHTS)
    assert objective.weights == Weights(
        label=0.3,
        logit=0.7,
        feature=feature_weight_of(method),
        ramp_steps=RAMP_STEPS if method == "exp3_scaled" else 0,
    )
    assert objective.logit_loss.temperature == 3.0
    assert (objective.feature_loss is None) == (method in LOGIT_METHODS)
    setting = {"dist": "intra_weight", "dkd": "beta"}.get(method)
    if setting is not None:
        assert getattr(objective.logit_loss, setting) == METHOD_WEIGHTS[method]
    else:
        assert isinstance(objective.logit_loss, KLLogitLoss)


class FeatureDistance(nn.Module):
    """A feature term that is the same in every step."""

    def forward(self, student_features, teacher_features):
        return student_features.mean() * 0.0 + 3.0


def make_ramp(ramp_steps, *, feature=2.0):
    return DistillationObjective(
        TEACHER,
        logit_loss=KLLogitLoss(temperature=1.0),
        feature_loss=FeatureDistance(),
        features="map",
        weights=Weights(label=1.0, logit=1.0, feature=feature, ramp_steps=ramp_steps),
    )


def weight_in_a_step(objective, student):
    terms = objective(student, *batch_of(), {})
    return ((terms["loss"] - terms["label"] - terms["logit"]) / terms["feature"]).item()


def test_a_ramped_weight_rises_step_by_step_and_stays():
    student, objective = make_student().eval(), make_ramp(4)
    found = [weight_in_a_step(objective, student) for _ in range(7)]
    assert found == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0], rel=1e-5)
    constant = make_ramp(0)
    found = [weight_in_a_step(constant, student) for _ in range(3)]
    assert found == pytest.approx([2.0] * 3, rel=1e-5)


def test_a_ramp_goes_on_in_training_alone():
    student, objective = make_student(), make_ramp(4)
    student.eval()
    objective.eval()
    found = [weight_in_a_step(objective, student) for _ in range(2)]
    assert found == pytest.approx([0.0] * 2, abs=1e-6)
    objective.train()
    assert weight_in_a_step(objective, student) == pytest.approx(0.5, rel=1e-5)
    objective.eval()
    found = [weight_in_a_step(objective, student) for _ in range(3)]
    assert found == pytest.approx([0.5] * 3, rel=1e-5)
    objective.train()
    assert weight_in_a_step(objective, student) == pytest.approx(1.0, rel=1e-5)


def test_a_ramps_place_is_part_of_the_state():
    student, objective, other = make_student().eval(), make_ramp(4), make_ramp(4)
    for _ in range(2):
        weight_in_a_step(objective, student)
    other.load_state_dict(objective.state_dict())
    assert weight_in_a_step(other, student) == pytest.approx(1.5, rel=1e-5)


@pytest.mark.parametrize(
    ("train", "epochs", "batch_size", "expected"),
    [
        (SETS.train, 10, 8, 9),  # 0.3 of 10 epochs of 3 steps
        (SETS.train, 10, 4, 18),
        (SETS.train, 1, 8, 1),
        (SETS.train, 0, 8, 0),
        (FEW_LABELS, 10, 8, 12),  # 4 steps
        (dataclasses.replace(SETS.train, repeats_to=30), 10, 8, 12),
    ],
)
def test_a_ramp_is_as_long_as_a_share_of_all_steps(
    train, epochs, batch_size, expected, objective_for
):
    for method in METHODS:
        objective = objective_for(method, train=train, epochs=epochs, batch_size=batch_size)
        assert objective.weights.ramp_steps == (expected if method == "exp3_scaled" else 0)


def test_in_a_training_a_ramp_has_gone_as_far_as_there_were_steps(objective_for):
    student = make_student()
    objective = objective_for("exp3_scaled", student=student)
    fit(make_training(student, objective), runtime=CPU)
    assert objective.num_steps.item() == STEPS


# The regressor


def regressor_of(objective):
    return torch.cat([parameter.detach().flatten() for parameter in objective.parameters()])


@pytest.mark.parametrize("method", REGRESSOR_METHODS)
def test_the_regressor_is_initialised_from_the_seed_alone(method, objective_for, stored):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = regressor_of(objective_for(method, run_seed=0))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(regressor_of(objective_for(method, run_seed=0)), first)
    other = make_teacher(seed=8)
    assert torch.equal(regressor_of(objective_for(method, run_seed=0, teacher=other)), first)
    for plan in CACHE_GB:
        found = regressor_of(objective_for(method, run_seed=0, stored=stored[plan]))
        assert torch.equal(found, first)
    # Not the parameter `seed`, which is the data's and the teacher's.
    assert torch.equal(regressor_of(objective_for(method, run_seed=0, seed=3)), first)
    seeds = [regressor_of(objective_for(method, run_seed=seed)) for seed in range(4)]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(seeds, 2))


def test_the_regressor_fits_the_features_and_is_the_only_one_with_parameters(objective_for, stored):
    for method, targets in itertools.product(REGRESSOR_METHODS, (None, stored["map"])):
        objective = objective_for(method, stored=targets)
        assert objective.feature_loss.regressor.weight.shape == (256, 96, 1, 1)
        assert objective.features == "map"
    for method in set(METHODS).difference(REGRESSOR_METHODS):
        objective = objective_for(method)
        expected = {"none": None, "pooled": "pooled"}.get(
            next((plan for plan in ("none", "pooled") if plan in STORED[method]), ""), "map"
        )
        assert objective.features == expected
        assert list(objective.parameters()) == []


@pytest.mark.parametrize("method", METHODS)
def test_building_an_objective_leaves_the_student_as_it_was(method, objective_for):
    for is_training in (True, False):
        student = make_student().train(is_training)
        before = {key: value.clone() for key, value in student.state_dict().items()}
        objective_for(method, student=student)
        assert all(module.training is is_training for module in student.modules())
        assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
