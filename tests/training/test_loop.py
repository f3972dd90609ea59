import dataclasses
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distillation.base.methods import EXPERIMENTS, further_methods
from distillation.base.params import make_params
from distillation.data.rows import ResidentRows, StreamedRows
from distillation.distilling.objective import build_objective
from distillation.models.classifier import Classifier
from distillation.models.creation import create_classifier
from distillation.training import guard
from distillation.training.batches import ImageSet, TrainSet, batch_shape
from distillation.training.checkpoints import TrainingStates
from distillation.training.cropping import ResizedCrop
from distillation.training.evaluation import evaluate
from distillation.training.guard import NonFiniteLossError
from distillation.training.loop import fit
from distillation.training.runtime import CPU, Runtime
from distillation.training.supervised import LabelObjective
from distillation.training.values import EpochRecord, Recipe, Training
from distillation.training.views import ViewSettings, augment, view_of_epoch, views_of_passes

METHODS = (*EXPERIMENTS, *further_methods())
REGRESSOR_METHODS = ("exp3", "exp3_scaled")
NUM_CLASSES = 3
VIEWS = ViewSettings(view_seed=5, crop_padding=1, horizontal_flip=True)
CROP = ResizedCrop(
    size=12, min_area=0.5, max_area=1.0, min_aspect=0.75, max_aspect=1.3, interpolation="bicubic"
)
RECIPE = Recipe(
    epochs=2,
    batch_size=16,
    learning_rate=5e-3,
    weight_decay=0.05,
    warmup_fraction=0.2,
    seed=0,
    views=VIEWS,
    num_views=4,
)
STEPS = 4  # of an epoch of 50 samples, 13 in a batch
BF16 = Runtime(device=torch.device("cpu"), precision="bf16")


def make_images(num_samples: int, seed: int):
    """Noise with one bright third of the picture a class: easy, but not free."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % NUM_CLASSES
    images = torch.randint(0, 120, (num_samples, 12, 12, 3), generator=generator).to(torch.uint8)
    for index, label in enumerate(labels.tolist()):
        images[index, 4 * label : 4 * label + 4] += 120
    return images, labels


IMAGES, LABELS = make_images(50, seed=1)
TRAIN = TrainSet(images=ResidentRows(IMAGES), labels=LABELS, samples=torch.arange(50))


def make_validation():
    images, labels = make_images(30, seed=2)
    return ImageSet(images=ResidentRows(images), labels=labels)


VALIDATION = make_validation()


def make_model(name: str = "test_resnet", seed: int = 0, *, drop_rate: float = 0.0):
    model = create_classifier(
        name, num_classes=NUM_CLASSES, image_size=12, seed=seed, stem_stride=1
    )
    assert hasattr(model.net, "drop_rate")
    model.net.drop_rate = drop_rate  # timm's networks drop features before the classifier
    return model


def make_objective(method, student, teacher, tiny_values, *, recipe=RECIPE, **weights):
    values = {"epochs": recipe.epochs, "batch_size": recipe.batch_size, **weights}
    return build_objective(
        method,
        make_params({**tiny_values, **values}),
        student=student,
        teacher=teacher,
        train=TRAIN,
        image_size=12,
        seed=recipe.seed,
    )


def states_equal(first, second) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


def copy_of(state):
    return {key: value.clone() for key, value in state.items()}


class Terms(nn.Module):
    """An objective that a function computes."""

    def __init__(self, compute_terms):
        super().__init__()
        self.compute_terms = compute_terms

    def forward(self, model, images, labels, outputs):
        return self.compute_terms(images, labels, outputs)


def train_by(
    objective, model, *, runtime=CPU, states=None, on_epoch=lambda record: None, **changes
):
    """Train a model by an objective, or by a function that computes its terms."""
    objective = objective if isinstance(objective, nn.Module) else Terms(objective)
    parts = {"name": "x", "train": TRAIN, "validation": VALIDATION, "recipe": RECIPE, **changes}
    training = Training(model=model, objective=objective, **parts)
    return fit(training, runtime=runtime, states=states, on_epoch=on_epoch)


def train_control(recipe=RECIPE, seed=0, drop_rate=0.0, **changes):
    model = make_model(seed=seed, drop_rate=drop_rate)
    return model, train_by(LabelObjective(), model, recipe=recipe, **changes)


def without_times(history):
    no_times = {"seconds": 0.0, "images_per_second": 0.0, "compute_seconds": 0.0}
    return [dataclasses.replace(record, **no_times) for record in history]


def test_same_seed_gives_the_same_bits():
    first, first_result = train_control()
    second, second_result = train_control()
    assert states_equal(first.state_dict(), second.state_dict())
    assert without_times(first_result.history) == without_times(second_result.history)


def test_the_global_generator_decides_nothing_and_is_left_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, _ = train_control(drop_rate=0.5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, _ = train_control(drop_rate=0.5)
    assert states_equal(first.state_dict(), second.state_dict())


def test_another_batch_order_gives_other_weights():
    first, _ = train_control()
    second, _ = train_control(dataclasses.replace(RECIPE, seed=1))
    assert not states_equal(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("runtime", [CPU, BF16], ids=lambda runtime: runtime.precision)
def test_training_learns(runtime):
    recipe = dataclasses.replace(RECIPE, epochs=12)
    model, result = train_control(recipe, runtime=runtime)
    assert result.history[-1].validation.acc > 90
    assert result.history[-1].terms["loss"] < 0.5 * result.history[0].terms["loss"]
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_teacher_is_untouched_by_distillation(method, tiny_values):
    teacher, student = make_model("test_efficientnet", seed=7), make_model()
    before = copy_of(teacher.state_dict())
    objective = make_objective(method, student, teacher, tiny_values)
    regressor = [p.detach().clone() for p in objective.parameters()]
    train_by(objective, student)
    assert states_equal(before, teacher.state_dict())
    assert not teacher.training
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(regressor, objective.parameters(), strict=True)]
    assert moved == ([True, True] if method in REGRESSOR_METHODS else [])


@pytest.mark.parametrize("method", METHODS)
def test_without_weights_it_is_the_control_to_the_bit(method, tiny_values):
    control, _ = train_control()
    student, teacher = make_model(), make_model("test_efficientnet", 7)
    weights = {"alpha": 0, "label_weight": 1, "feature_weight": 0}
    weights["method_weights"] = dict.fromkeys(further_methods(), 0)
    if method == "exp1":  # there is no term for it
        weights["feature_weight"] = 1
    objective = make_objective(method, student, teacher, tiny_values, **weights)
    train_by(objective, student)
    assert states_equal(control.state_dict(), student.state_dict())


# What a training is shown


def record_batches(model=None, **changes):
    """Train and give the (images, labels, targets) of every step."""
    seen = []
    model = model or make_model()

    def compute_terms(images, labels, targets):
        seen.append((images.clone(), labels.clone(), targets))
        return {"loss": F.cross_entropy(model(images), labels)}

    train_by(compute_terms, model, **changes)
    return seen


def pictures_of(batches):
    return {image.numpy().tobytes() for images, *_ in batches for image in images}


def views_of(samples, view_number):
    images = augment(IMAGES[samples], samples, view_number, settings=VIEWS)
    return {image.numpy().tobytes() for image in images}


def test_methods_see_the_same_views_in_the_same_order():
    first, second = record_batches(make_model(seed=1)), record_batches(make_model(seed=2))
    assert len(first) == RECIPE.epochs * STEPS
    assert batch_shape(50, RECIPE.batch_size) == (STEPS, 13)
    for mine, theirs in zip(first, second, strict=True):
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])
    orders = [torch.cat([labels for _, labels, _ in first[i : i + STEPS]]) for i in (0, STEPS)]
    assert not torch.equal(*orders)  # every epoch has its own


@pytest.mark.parametrize(("num_views", "seed"), [(1, 0), (2, 0), (2, 1), (5, 3)])
def test_epochs_show_the_views_of_all_samples_in_turn(num_views, seed):
    recipe = dataclasses.replace(RECIPE, epochs=3, num_views=num_views, seed=seed)
    seen = record_batches(recipe=recipe)
    for epoch in range(3):
        view = view_of_epoch(epoch, num_views=num_views, seed=seed)
        shown = pictures_of(seen[epoch * STEPS : (epoch + 1) * STEPS])
        assert shown == views_of(torch.arange(50), view)
    assert views_of(torch.arange(50), 0) != views_of(torch.arange(50), 1)


def test_only_the_chosen_samples_are_trained_on():
    """A sample's view is the one it has when all are trained on."""
    samples = torch.tensor([1, 4, 7, 30, 31, 32, 49])
    seen = record_batches(train=dataclasses.replace(TRAIN, samples=samples))
    assert [len(images) for images, *_ in seen] == [7] * RECIPE.epochs
    for epoch, batch in enumerate(seen):
        assert pictures_of([batch]) == views_of(samples, epoch)
        assert torch.equal(batch[1].sort().values, LABELS[samples].sort().values)


def test_an_epoch_may_go_through_its_samples_several_times():
    """As often as they fit into the number of images asked for, each time in another view."""
    samples = torch.tensor([1, 4, 7, 30, 31, 32, 49])
    recipe = dataclasses.replace(RECIPE, num_views=2, seed=3)
    train = dataclasses.replace(TRAIN, samples=samples, repeats_to=50)
    seen = record_batches(train=train, recipe=recipe)
    assert [len(images) for images, *_ in seen] == [13] * (2 * STEPS)  # as if there were 50
    for epoch in range(2):
        batches = seen[epoch * STEPS : (epoch + 1) * STEPS]
        numbers = views_of_passes(52, 7, epoch=epoch, seed=3).unique().tolist()
        assert len(numbers) == 8
        expected = [views_of(samples, number) for number in numbers]
        assert pictures_of(batches) <= set().union(*expected)
        counts = torch.cat([labels for _, labels, _ in batches]).bincount(minlength=3)
        assert counts.sum() == 52
        of_a_pass = LABELS[samples].bincount(minlength=3)
        assert all(7 * of_a_pass <= counts)
        # Seven whole passes, each in a view of its own, in the order of the passes.
        pictures = [image.numpy().tobytes() for images, *_ in batches for image in images]
        for number in range(7):
            assert set(pictures[7 * number : 7 * number + 7]) == expected[number]
        assert set(pictures[49:]) <= expected[7]


def test_samples_repeated_to_fewer_images_than_there_are_change_nothing():
    found, _ = train_control(train=dataclasses.replace(TRAIN, repeats_to=50))
    expected, _ = train_control()
    assert states_equal(found.state_dict(), expected.state_dict())


class Outputs:
    """A teacher's outputs that name their sample and view."""

    is_streamed = False

    def take(self, samples, view_number):
        return {"logits": samples.device + 1000 * view_number}


def test_the_objective_is_handed_the_targets_of_the_views_it_sees():
    recipe = dataclasses.replace(RECIPE, num_views=3, seed=1)
    seen = record_batches(
        train=dataclasses.replace(TRAIN, teacher_outputs=Outputs()), recipe=recipe
    )
    for step, (images, labels, targets) in enumerate(seen):
        view = view_of_epoch(step // STEPS, num_views=3, seed=1)
        samples = targets["logits"] - 1000 * view
        assert torch.equal(labels, LABELS[samples])
        assert torch.equal(images, augment(IMAGES[samples], samples, view, settings=VIEWS))
    assert all(targets == {} for *_, targets in record_batches())


def test_mixed_views_train_on_both_labels():
    """The term is share · CE(own) + (1 − share) · CE(partner) of the very images seen."""
    views = dataclasses.replace(VIEWS, mixup=1.0, cutmix=1.0)
    terms = []

    class Checking(LabelObjective):
        def forward(self, model, images, labels, teacher_outputs):
            found = super().forward(model, images, labels, teacher_outputs)
            log_probs = model(images).float().log_softmax(1)
            own, partner = (
                -log_probs.gather(1, one[:, None])[:, 0] for one in (labels.own, labels.partner)
            )
            expected = labels.own_share * own + (1 - labels.own_share) * partner
            terms.append((found["loss"].item(), expected.mean().item()))
            assert 0.5 <= labels.own_share.min() < labels.own_share.max() <= 1
            assert not torch.equal(labels.own, labels.partner)
            return found

    train_by(Checking(), make_model(), recipe=dataclasses.replace(RECIPE, views=views))
    assert len(terms) == 2 * STEPS
    for found, expected in terms:
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [12, 8])
def test_resized_crops_may_be_smaller_than_the_images_they_are_cut_from(size):
    crop = dataclasses.replace(CROP, size=size)
    recipe = dataclasses.replace(RECIPE, views=dataclasses.replace(VIEWS, resized_crop=crop))
    for images, labels, _ in record_batches(recipe=recipe):
        assert images.shape == (len(labels), 3, size, size)


def test_streamed_images_train_to_the_same_bits(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    streamed = dataclasses.replace(TRAIN, images=StreamedRows(mapped, torch.device("cpu")))
    found, found_result = train_control(train=streamed)
    expected, expected_result = train_control()
    assert states_equal(found.state_dict(), expected.state_dict())
    assert without_times(found_result.history) == without_times(expected_result.history)


# Records and the best epoch


def test_best_epoch_is_the_first_of_the_highest_validation_accuracy():
    recipe = dataclasses.replace(RECIPE, epochs=6)
    model, result = train_control(recipe)
    accuracies = [record.validation.acc for record in result.history]
    assert result.best_epoch == 1 + accuracies.index(max(accuracies))
    # The weights kept are those of that epoch: they give its validation metrics again.
    model.load_state_dict(result.best_state)
    found = evaluate(model, VALIDATION.images, VALIDATION.labels, runtime=CPU)
    assert found == result.history[result.best_epoch - 1].validation


def test_no_epochs_leave_the_model_as_it_was():
    model, result = train_control(dataclasses.replace(RECIPE, epochs=0))
    assert result.history == []
    assert result.best_epoch == 0
    assert states_equal(model.state_dict(), make_model().state_dict())
    assert states_equal(result.best_state, make_model().state_dict())


def test_a_term_is_averaged_over_the_epochs_steps():
    model = make_model()
    values = iter([1.0, 2.0, 3.0, 6.0])

    def compute_terms(images, labels, targets):
        loss = F.cross_entropy(model(images), labels)
        return {"loss": loss, "label": torch.tensor(next(values))}

    recipe = dataclasses.replace(RECIPE, epochs=1)
    result = train_by(compute_terms, model, recipe=recipe)
    assert result.history[0].terms["label"] == 3.0


def test_a_records_dictionary_gives_it_back():
    _, result = train_control()
    for record in result.history:
        assert EpochRecord.from_dict(dataclasses.asdict(record)) == record


def test_every_epoch_is_reported_as_soon_as_it_is_done():
    reported = []
    _, result = train_control(on_epoch=reported.append)
    assert reported == result.history
    assert [record.epoch for record in reported] == [1, 2]


# Losses that are not finite


def explode_at(model, step, factor=float("inf")):
    """An objective whose logit term is infinite in one step, and the weights before every step."""
    before = []

    def compute_terms(images, labels, targets):
        before.append(copy_of(model.state_dict()))
        label = F.cross_entropy(model(images), labels)
        logit = label * (factor if len(before) == step else 1.0)
        return {"loss": label + logit, "label": label, "logit": logit}

    return compute_terms, before


def test_non_finite_loss_stops_before_the_step_and_names_the_term():
    model = make_model()
    compute_terms, before = explode_at(model, 6)
    with pytest.raises(NonFiniteLossError, match=r"x: .*epoch 2, step 2: loss = inf, logit = inf;"):
        train_by(compute_terms, model)
    assert len(before) == 6
    parameters = dict(model.named_parameters())
    assert all(torch.equal(before[-1][key], value) for key, value in parameters.items())


@pytest.mark.parametrize("step", [5, 6, 8])
def test_on_a_device_the_epochs_end_finds_what_no_step_has_looked_for(monkeypatch, step):
    real = guard.NonFiniteGuard.__init__

    def as_on_a_gpu(self, *arguments, **keywords):
        real(self, *arguments, **keywords)
        self._interval = 100

    monkeypatch.setattr(guard.NonFiniteGuard, "__init__", as_on_a_gpu)
    model, reported = make_model(), []
    compute_terms, before = explode_at(model, step, factor=float("nan"))
    with pytest.raises(NonFiniteLossError, match=rf"epoch 2, step {step - 4}: loss = nan, logit"):
        train_by(compute_terms, model, on_epoch=reported.append)
    assert len(before) == 8  # the epoch went on
    assert [record.epoch for record in reported] == [1]
    parameters = dict(model.named_parameters())
    assert all(torch.equal(before[step - 1][key], value) for key, value in parameters.items())


# Going on after an interruption


@pytest.fixture
def states(tmp_path):
    """Give the place of one training's state, opened anew as another process would."""
    return lambda: TrainingStates(tmp_path / "states", stage="x", fingerprint="f" * 64)


class InterruptedTrainingError(Exception):
    """The power goes."""


def interrupt_at(step):
    """Count the calls of all objectives it wraps; the one with this number does not come back."""
    steps = iter(range(1, 10**6))

    def wrap(compute_terms):
        def wrapped(*arguments):
            if next(steps) == step:
                raise InterruptedTrainingError
            return compute_terms(*arguments)

        return wrapped

    return wrap


def supervised_terms(model):
    def compute_terms(images, labels, targets):
        return {"loss": F.cross_entropy(model(images).float(), labels)}

    return compute_terms


LONG = dataclasses.replace(RECIPE, epochs=3, num_views=2)


def train_with_states(states, *, wrap=lambda terms: terms, **changes):
    """Train a model with dropout from its beginning, or from the state that is there."""
    model = make_model(drop_rate=0.5)
    with states() as opened:
        changes = {"recipe": LONG, "states": opened, **changes}
        result = train_by(wrap(supervised_terms(model)), model, **changes)
    return model, result


@pytest.fixture(scope="module")
def never_interrupted():
    model = make_model(drop_rate=0.5)
    result = train_by(supervised_terms(model), model, recipe=LONG)
    plain = make_model()
    train_by(supervised_terms(plain), plain, recipe=LONG)
    assert not states_equal(plain.state_dict(), model.state_dict())  # there is dropout
    return model, result


def assert_same(found, expected):
    assert states_equal(found[0].state_dict(), expected[0].state_dict())
    assert found[1].best_epoch == expected[1].best_epoch
    assert states_equal(found[1].best_state, expected[1].best_state)
    assert without_times(found[1].history) == without_times(expected[1].history)


def test_keeping_states_changes_nothing(never_interrupted, states):
    assert_same(train_with_states(states), never_interrupted)


@pytest.mark.parametrize("step", [1, 3, 5, 8, 9, 12])
def test_an_interrupted_training_goes_on_to_the_same_bits(never_interrupted, states, step):
    with pytest.raises(InterruptedTrainingError):
        train_with_states(states, wrap=interrupt_at(step))
    torch.manual_seed(step)  # another process has another global generator
    reported = []
    found = train_with_states(states, on_epoch=reported.append)
    assert_same(found, never_interrupted)
    done = (step - 1) // STEPS
    assert [record.epoch for record in reported] == list(range(done + 1, 4))


def test_a_training_may_be_interrupted_more_than_once(never_interrupted, states):
    for step in (6, 6, 2):  # counted from where it goes on
        with pytest.raises(InterruptedTrainingError):
            train_with_states(states, wrap=interrupt_at(step))
    assert_same(train_with_states(states), never_interrupted)


def test_an_interruption_right_behind_an_epoch_loses_nothing(never_interrupted, states):
    """What reports an epoch may fail: the epoch is saved by then."""

    def fail(record):
        if record.epoch == 2:
            raise InterruptedTrainingError

    with pytest.raises(InterruptedTrainingError):
        train_with_states(states, on_epoch=fail)
    reported = []
    assert_same(train_with_states(states, on_epoch=reported.append), never_interrupted)
    assert [record.epoch for record in reported] == [3]


def test_a_finished_training_is_not_run_again(never_interrupted, states):
    train_with_states(states)
    reported = []
    found = train_with_states(states, wrap=interrupt_at(1), on_epoch=reported.append)
    assert_same(found, never_interrupted)
    assert reported == []


@pytest.mark.parametrize("method", REGRESSOR_METHODS)
def test_an_objective_with_parameters_goes_on_with_them(method, tiny_values, states):
    def train(*, step=None, states=None):
        student, teacher = make_model(), make_model("test_efficientnet", seed=7)
        objective = make_objective(method, student, teacher, tiny_values)
        if step is not None:
            objective.forward = interrupt_at(step)(objective.forward)
        result = train_by(objective, student, states=states)
        return student, result, objective.state_dict()

    *expected, expected_regressor = train()
    with states() as opened, pytest.raises(InterruptedTrainingError):
        train(step=6, states=opened)
    with states() as opened:
        *found, regressor = train(states=opened)
    assert_same(found, expected)
    assert len(regressor) == 3  # the regressor's two, and the steps of a ramp
    assert states_equal(regressor, expected_regressor)


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(never_interrupted, states):
    def explode(compute_terms):
        steps = iter(range(1, 100))

        def wrapped(*arguments):
            factor = float("nan") if next(steps) == 7 else 1.0
            return {"loss": compute_terms(*arguments)["loss"] * factor}

        return wrapped

    with pytest.raises(NonFiniteLossError, match="epoch 2, step 3: loss = nan"):
        train_with_states(states, wrap=explode)
    with states() as opened:
        assert [record["epoch"] for record in opened.history()] == [1]
    assert_same(train_with_states(states), never_interrupted)


def test_a_state_goes_on_in_bf16_too(never_interrupted, states):
    in_float32, _ = never_interrupted
    model = make_model(drop_rate=0.5)
    result = train_by(supervised_terms(model), model, recipe=LONG, runtime=BF16)
    assert not states_equal(model.state_dict(), in_float32.state_dict())
    with pytest.raises(InterruptedTrainingError):
        train_with_states(states, wrap=interrupt_at(7), runtime=BF16)
    assert_same(train_with_states(states, runtime=BF16), (model, result))


# The moving average of the weights

AVERAGED = dataclasses.replace(RECIPE, epochs=3, ema_decay=0.7, learning_rate=1e-2)


def average_by_hand(states, decay):
    """The recursion in float64 over the weights after each step; the first step's count alone."""
    average = {key: value.double() for key, value in states[0].items()}
    for step, state in enumerate(states[1:], start=2):
        d = min(decay, 1.0 - step ** (-2 / 3))
        for key, value in state.items():
            average[key] = d * average[key] + (1 - d) * value.double()
            if not value.is_floating_point():
                average[key] = value.double()
    return average


def assert_weights_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-4, atol=1e-5)


def test_what_is_measured_and_kept_is_the_average():
    model, before, ends = make_model(), [], []

    def compute_terms(images, labels, targets):
        before.append(copy_of(model.state_dict()))
        return {"loss": F.cross_entropy(model(images).float(), labels)}

    def on_epoch(record):  # the model has the weights themselves until the training is over
        ends.append(copy_of(model.state_dict()))

    result = train_by(compute_terms, model, recipe=AVERAGED, on_epoch=on_epoch)
    after = [
        ends[step // STEPS - 1] if step % STEPS == 0 else before[step]
        for step in range(1, 3 * STEPS + 1)
    ]
    averages = [average_by_hand(after[: epoch * STEPS], 0.7) for epoch in (1, 2, 3)]
    for record, average, raw in zip(result.history, averages, ends, strict=True):
        for weights, is_measured in ((average, True), (raw, False)):
            other = make_model(seed=1)
            other.load_state_dict(weights)
            found = evaluate(other, VALIDATION.images, VALIDATION.labels, runtime=CPU)
            close = pytest.approx(dataclasses.asdict(record.validation), rel=1e-3)
            assert (dataclasses.asdict(found) == close) is is_measured
    assert_weights_close(result.best_state, averages[result.best_epoch - 1])
    assert_weights_close(model.state_dict(), averages[-1])
    assert not states_equal(model.state_dict(), ends[-1])
    # The weights kept give the metrics of their epoch again, to the bit.
    model.load_state_dict(result.best_state)
    found = evaluate(model, VALIDATION.images, VALIDATION.labels, runtime=CPU)
    assert found == result.history[result.best_epoch - 1].validation


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_the_average_does_not_disturb_the_training(decay):
    def train(ema_decay):
        model, steps = make_model(drop_rate=0.5), []
        compute = supervised_terms(model)

        def compute_terms(*arguments):
            terms = compute(*arguments)
            steps.append(terms["loss"].item())
            return terms

        ends = []
        recipe = dataclasses.replace(LONG, ema_decay=ema_decay)
        changes = {"recipe": recipe, "on_epoch": lambda _: ends.append(copy_of(model.state_dict()))}
        result = train_by(compute_terms, model, **changes)
        return steps, ends, result

    (plain_steps, plain_ends, plain), (steps, ends, result) = train(0.0), train(decay)
    assert steps == plain_steps
    assert all(states_equal(*pair) for pair in zip(ends, plain_ends, strict=True))
    for mine, theirs in zip(result.history, plain.history, strict=True):
        assert mine.terms == theirs.terms
        assert mine.learning_rate == theirs.learning_rate
        assert mine.validation != theirs.validation


def test_without_epochs_there_is_no_average():
    model, result = train_control(dataclasses.replace(RECIPE, epochs=0, ema_decay=0.9))
    assert states_equal(model.state_dict(), make_model().state_dict())
    assert states_equal(result.best_state, make_model().state_dict())


def test_what_is_trained_beside_the_model_is_not_averaged(tiny_values):
    """The regressor is no part of what is kept."""

    def train(ema_decay):
        student, teacher = make_model(), make_model("test_efficientnet", seed=7)
        objective = make_objective("exp3", student, teacher, tiny_values)
        recipe = dataclasses.replace(RECIPE, ema_decay=ema_decay)
        train_by(objective, student, recipe=recipe)
        return student, objective

    (student, objective), (plain_student, plain_objective) = train(0.9), train(0.0)
    assert states_equal(objective.state_dict(), plain_objective.state_dict())
    assert not states_equal(student.state_dict(), plain_student.state_dict())


# Patience

PATIENT = dataclasses.replace(RECIPE, epochs=12)


@pytest.fixture(scope="module")
def endless():
    """Give a long training that never stops."""
    return train_control(PATIENT, drop_rate=0.5)


def epochs_until_patience_ends(accuracies, patience_epochs):
    """Count epochs by hand: stop behind so many in a row that were not better than the best."""
    best, bad = float("-inf"), 0
    for epoch, accuracy in enumerate(accuracies, start=1):
        bad = 0 if accuracy > best else bad + 1
        best = max(best, accuracy)
        if bad == patience_epochs:
            return epoch
    return len(accuracies)


def test_the_count_by_hand():
    assert epochs_until_patience_ends([1, 2, 2, 3, 9], 1) == 3
    assert epochs_until_patience_ends([1, 2, 2, 3, 1, 3, 9], 2) == 6
    assert epochs_until_patience_ends([1, 2, 2, 3, 1, 3, 9], 3) == 7


@pytest.mark.parametrize("patience_epochs", [1, 2, 3, 12])
def test_a_training_stops_when_its_patience_ends(endless, patience_epochs):
    """What it did until then is what it does without patience."""
    _, expected = endless
    accuracies = [record.validation.acc for record in expected.history]
    assert len(accuracies) == 12  # without patience it never stops
    num_epochs = epochs_until_patience_ends(accuracies, patience_epochs)
    assert (num_epochs < 12) is (patience_epochs < 12)
    recipe = dataclasses.replace(PATIENT, patience_epochs=patience_epochs)
    reported = []
    _, result = train_control(recipe, drop_rate=0.5, on_epoch=reported.append)
    assert without_times(result.history) == without_times(expected.history[:num_epochs])
    assert reported == result.history
    assert result.best_epoch == 1 + accuracies.index(max(accuracies[:num_epochs]))


def train_in_place(**changes):
    """Train with steps too small to move a weight, a model without running statistics."""
    model = Classifier(Small(has_norm=False), name="small", num_classes=NUM_CLASSES)
    recipe = dataclasses.replace(PATIENT, learning_rate=1e-30, weight_decay=0.0, **changes)
    result = train_by(LabelObjective(), model, recipe=recipe)
    assert len({record.validation.acc for record in result.history}) == 1
    assert result.best_epoch == 1
    return result.history


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("patience_epochs", [1, 2, 11, 12])
def test_an_accuracy_that_stays_is_not_better(patience_epochs, ema_decay):
    history = train_in_place(patience_epochs=patience_epochs, ema_decay=ema_decay)
    assert len(history) == min(1 + patience_epochs, 12)


def test_without_patience_no_training_stops():
    assert PATIENT.patience_epochs is None
    assert len(train_in_place()) == 12


def test_a_training_that_has_stopped_is_not_gone_on_with(states):
    recipe = dataclasses.replace(PATIENT, patience_epochs=1, ema_decay=0.5)
    expected = train_with_states(states, recipe=recipe)
    num_epochs = len(expected[1].history)
    assert num_epochs < PATIENT.epochs
    reported = []
    found = train_with_states(states, wrap=interrupt_at(1), recipe=recipe, on_epoch=reported.append)
    assert_same(found, expected)
    assert reported == []


# All of it at once: average, patience, a ramp and an interruption

EVERYTHING = dataclasses.replace(
    RECIPE, epochs=8, num_views=2, ema_decay=0.8, patience_epochs=2, learning_rate=1e-2
)

MIXED = dataclasses.replace(
    EVERYTHING,
    views=dataclasses.replace(VIEWS, resized_crop=CROP, color_jitter=0.4, mixup=0.4, cutmix=1.0),
)


@pytest.fixture(scope="module")
def train_everything(tiny_values):
    """Give a function that trains with all of it, with dropout, and counts the steps."""

    def train(*, states=None, step=None, reported=None, recipe=EVERYTHING):
        student = make_model(drop_rate=0.5)
        teacher = make_model("test_efficientnet", seed=7)
        objective = make_objective("exp3_scaled", student, teacher, tiny_values, recipe=recipe)
        assert objective.weights.ramp_steps == 10  # 0.3 of 32 steps: it ends in the third epoch
        if step is not None:
            objective.forward = interrupt_at(step)(objective.forward)
        on_epoch = (lambda record: None) if reported is None else reported.append
        result = train_by(objective, student, states=states, recipe=recipe, on_epoch=on_epoch)
        return student, result, objective.state_dict()

    return train


@pytest.fixture(scope="module")
def everything_uninterrupted(train_everything):
    return train_everything()


@pytest.mark.parametrize("steps", [(2,), (6,), (11,), (4, 3, 6)])
def test_everything_goes_on_to_the_same_bits(
    train_everything, everything_uninterrupted, states, steps
):
    *expected, expected_objective = everything_uninterrupted
    for step in steps:  # counted from where it goes on
        with states() as opened, pytest.raises(InterruptedTrainingError):
            train_everything(states=opened, step=step)
        torch.manual_seed(step)
    with states() as opened:
        *found, objective = train_everything(states=opened)
    assert_same(found, expected)
    assert states_equal(objective, expected_objective)


@pytest.fixture(scope="module")
def mixed_uninterrupted(train_everything):
    return train_everything(recipe=MIXED)


@pytest.mark.parametrize("step", [2, 6])
def test_a_training_on_mixed_views_goes_on_to_the_same_bits(
    train_everything, everything_uninterrupted, mixed_uninterrupted, states, step
):
    with states() as opened, pytest.raises(InterruptedTrainingError):
        train_everything(states=opened, step=step, recipe=MIXED)
    torch.manual_seed(step)
    with states() as opened:
        *found, objective = train_everything(states=opened, recipe=MIXED)
    *expected, expected_objective = mixed_uninterrupted
    assert_same(found, expected)
    assert states_equal(objective, expected_objective)
    assert not states_equal(found[0].state_dict(), everything_uninterrupted[0].state_dict())


def test_everything_that_has_stopped_stays_so(train_everything, everything_uninterrupted, states):
    *expected, expected_objective = everything_uninterrupted
    num_epochs = len(expected[1].history)
    accuracies = [record.validation.acc for record in expected[1].history]
    assert num_epochs == epochs_until_patience_ends(accuracies, 2)
    assert expected_objective["num_steps"].item() == num_epochs * STEPS
    with states() as opened:
        train_everything(states=opened)
    reported = []
    with states() as opened:
        *found, objective = train_everything(states=opened, step=1, reported=reported)
    assert_same(found, expected)
    assert states_equal(objective, expected_objective)
    assert reported == []


# Precision and compilation


@pytest.mark.parametrize("method", METHODS)
def test_in_bf16_layers_compute_in_it_and_weights_and_losses_do_not(method, tiny_values):
    student, teacher = make_model(), make_model("test_efficientnet", seed=7)
    objective = make_objective(method, student, teacher, tiny_values)
    names = {"loss", "label", "logit"} | ({"feature"} if objective.feature_loss else set())
    seen = []

    def compute_terms(images, labels, targets):
        features = student.outputs(images)
        seen.append((features.logits.dtype, features.features.dtype))
        terms = objective(student, images, labels, targets)
        assert {term: value.dtype for term, value in terms.items()} == dict.fromkeys(
            names, torch.float32
        )
        return terms

    result = train_by(compute_terms, student, runtime=BF16)
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}
    for module in (student, objective):
        assert all(p.dtype == torch.float32 for p in module.parameters())
    assert all(value.dtype != torch.bfloat16 for value in result.best_state.values())


class Small(nn.Module):
    """A network small enough to be compiled in seconds."""

    pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3}  # noqa: RUF012

    def __init__(self, *, has_norm=True):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8) if has_norm else nn.Identity()
        self.fc = nn.Linear(8, NUM_CLASSES)

    def forward(self, images):
        return self.fc(self.norm(self.conv(images)).relu().mean(dim=(2, 3)))


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler to compile with")
def test_a_compiled_training_agrees_with_one_that_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)

    def train(runtime):
        model = Classifier(Small(), name="small", num_classes=NUM_CLASSES)
        model.to(memory_format=torch.channels_last)
        return model, train_by(LabelObjective(), model, runtime=runtime)

    (compiled, found), (eager, expected) = (
        train(runtime) for runtime in (dataclasses.replace(CPU, compiles=True), CPU)
    )
    assert list(tmp_path.rglob("*.so"))  # something was compiled
    for mine, theirs in zip(found.history, expected.history, strict=True):
        assert mine.terms["loss"] == pytest.approx(theirs.terms["loss"], rel=1e-3)
    for key, value in eager.state_dict().items():
        assert torch.allclose(compiled.state_dict()[key], value, rtol=1e-2, atol=1e-3), key
    start = Small().state_dict()
    assert not torch.allclose(eager.net.fc.weight, start["fc.weight"], atol=2e-3)
