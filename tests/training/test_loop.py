import dataclasses

import pytest
import torch
from torch.nn import functional as F

from distillation.distill import build_objective, distill
from distillation.models import create_classifier
from distillation.params import make_params
from distillation.training.loop import (
    ImageSet,
    NonFiniteLossError,
    Recipe,
    count_steps,
    fit,
    iterate_batches,
)
from distillation.training.supervised import train_supervised
from distillation.training.views import ViewSettings

NUM_CLASSES = 3
VIEWS = ViewSettings(view_seed=5, crop_padding=1, horizontal_flip=True)
RECIPE = Recipe(
    epochs=2,
    batch_size=16,
    learning_rate=5e-3,
    weight_decay=0.05,
    warmup_fraction=0.2,
    seed=0,
    views=VIEWS,
)


def make_set(num_samples: int, seed: int) -> ImageSet:
    """Noise with one bright third of the picture a class: easy, but not free."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % NUM_CLASSES
    images = torch.randint(0, 120, (num_samples, 12, 12, 3), generator=generator).to(torch.uint8)
    for index, label in enumerate(labels.tolist()):
        images[index, 4 * label : 4 * label + 4] += 120
    return ImageSet(images=images, labels=labels)


TRAIN, VALIDATION = make_set(50, seed=1), make_set(30, seed=2)


def make_model(name: str = "test_resnet", seed: int = 0):
    return create_classifier(name, num_classes=NUM_CLASSES, image_size=12, seed=seed, stem_stride=1)


def make_objective(experiment, student, teacher, tiny_values, **weights):
    params = make_params({**tiny_values, **weights})
    return build_objective(experiment, params, student=student, teacher=teacher, image_size=12)


def states_equal(first, second) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first)


def train_control(recipe=RECIPE, seed=0):
    model = make_model(seed=seed)
    result = train_supervised(
        model, train=TRAIN, validation=VALIDATION, recipe=recipe, name="control"
    )
    return model, result


def test_same_seed_gives_the_same_bits():
    first, first_result = train_control()
    second, second_result = train_control()
    assert states_equal(first.state_dict(), second.state_dict())
    assert [r.terms for r in first_result.history] == [r.terms for r in second_result.history]


def test_another_batch_order_gives_other_weights():
    first, _ = train_control()
    second, _ = train_control(dataclasses.replace(RECIPE, seed=1))
    assert not states_equal(first.state_dict(), second.state_dict())


def test_training_learns():
    recipe = dataclasses.replace(RECIPE, epochs=12)
    _, result = train_control(recipe)
    assert result.history[-1].validation.acc > 90
    assert result.history[-1].terms["loss"] < 0.5 * result.history[0].terms["loss"]


@pytest.mark.parametrize("experiment", ["exp1", "exp2", "exp3"])
def test_teacher_is_untouched_by_distillation(experiment, tiny_values):
    teacher, student = make_model("test_efficientnet", seed=7), make_model()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    objective = make_objective(experiment, student, teacher, tiny_values)
    regressor = [p.detach().clone() for p in objective.parameters()]
    distill(student, objective, train=TRAIN, validation=VALIDATION, recipe=RECIPE, name="x")
    assert states_equal(before, teacher.state_dict())
    assert not teacher.training
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(regressor, objective.parameters(), strict=True)]
    assert moved == ([True, True] if experiment == "exp3" else [])


def test_alpha_zero_is_the_control_to_the_bit(tiny_values):
    control, _ = train_control()
    student = make_model()
    objective = make_objective(
        "exp1", student, make_model("test_efficientnet", 7), tiny_values, alpha=0, label_weight=1
    )
    distill(student, objective, train=TRAIN, validation=VALIDATION, recipe=RECIPE, name="x")
    assert states_equal(control.state_dict(), student.state_dict())


def test_arms_see_the_same_views_in_the_same_order():
    def record(num_models: int) -> list[torch.Tensor]:
        seen = []
        model = make_model(seed=num_models)

        def compute_terms(images, labels):
            seen.append(images.clone())
            return {"loss": F.cross_entropy(model(images), labels)}

        fit(model, compute_terms, train=TRAIN, validation=VALIDATION, recipe=RECIPE, name="x")
        return seen

    first, second = record(1), record(2)
    assert len(first) == RECIPE.epochs * count_steps(len(TRAIN.labels), RECIPE.batch_size)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # The second epoch shows other views than the first.
    assert {tuple(b.flatten().tolist()) for b in first[0]} != {
        tuple(b.flatten().tolist()) for b in first[len(first) // 2]
    }


def test_best_epoch_is_the_first_of_the_highest_validation_accuracy():
    recipe = dataclasses.replace(RECIPE, epochs=6)
    model, result = train_control(recipe)
    accuracies = [record.validation.acc for record in result.history]
    assert result.best_epoch == 1 + accuracies.index(max(accuracies))
    # The weights kept are those of that epoch: they give its validation accuracy again.
    from distillation.evaluation import evaluate

    model.load_state_dict(result.best_state)
    assert evaluate(model, VALIDATION.images, VALIDATION.labels).acc == max(accuracies)


def test_no_epochs_leave_the_model_as_it_was():
    model, result = train_control(dataclasses.replace(RECIPE, epochs=0))
    assert result.history == []
    assert result.best_epoch == 0
    assert states_equal(model.state_dict(), make_model().state_dict())


def test_non_finite_loss_stops_before_the_step_and_names_the_term():
    model = make_model()
    steps = []

    def compute_terms(images, labels):
        steps.append({key: value.clone() for key, value in model.state_dict().items()})
        label = F.cross_entropy(model(images), labels)
        logit = label * (float("inf") if len(steps) == 6 else 1.0)
        return {"loss": label + logit, "label": label, "logit": logit}

    with pytest.raises(NonFiniteLossError, match=r"x: .*epoch 2, step 2: loss = inf, logit = inf"):
        fit(model, compute_terms, train=TRAIN, validation=VALIDATION, recipe=RECIPE, name="x")
    parameters = dict(model.named_parameters())
    assert all(torch.equal(steps[-1][key], value) for key, value in parameters.items())


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "sizes"),
    [(50, 16, {12, 13}), (129, 128, {64, 65}), (5, 128, {5}), (4, 2, {2}), (1, 1, {1})],
)
def test_batches_hold_every_sample_once_and_none_is_short(num_samples, batch_size, sizes):
    generator = torch.Generator().manual_seed(0)
    batches = list(iterate_batches(num_samples, batch_size, generator=generator))
    assert len(batches) == count_steps(num_samples, batch_size)
    assert {len(batch) for batch in batches} == sizes
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(num_samples))


def test_epoch_means_weigh_batches_by_their_size():
    model = make_model()
    values = iter([1.0, 2.0, 3.0, 6.0])

    def compute_terms(images, labels):
        loss = F.cross_entropy(model(images), labels)
        return {"loss": loss, "label": torch.tensor(next(values))}

    recipe = dataclasses.replace(RECIPE, epochs=1)
    result = fit(model, compute_terms, train=TRAIN, validation=VALIDATION, recipe=recipe, name="x")
    # 50 samples in batches of 13, 13, 12, 12.
    assert result.history[0].terms["label"] == pytest.approx((13 + 26 + 36 + 72) / 50)
