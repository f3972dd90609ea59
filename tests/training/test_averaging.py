"""The moving average of the weights: its recursion by hand, its state, and that it only looks."""

import io

import pytest
import torch
from torch import nn

from distillation.models.creation import create_classifier
from distillation.training.averaging import WeightAverage


def make_model(seed=0):
    return create_classifier("test_resnet", num_classes=3, image_size=12, seed=seed, stem_stride=1)


def move(model, step):
    """Stand in for a training step: other weights, statistics and counts."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator))
            else:
                value.add_(step)


def test_a_module_in_two_places_is_averaged_once():
    """As CoaT has it; the state names its tensors twice."""
    model = make_model()
    model.net.again = model.net.bn1
    assert {"net.bn1.weight", "net.again.weight"} <= model.state_dict().keys()
    average, states = WeightAverage(model, decay=0.9), []
    for step in range(1, 6):
        with torch.no_grad():
            model.net.bn1.weight.add_(float(step))
        average.update(model)
        states.append({"weight": model.net.bn1.weight.detach().clone()})
    assert_close({"weight": average.model.net.again.weight.detach()}, average_by_hand(states, 0.9))


def copy_of(module):
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def states_equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


def decay_by_hand(step, decay):
    """Of a step s = 1, 2, …: 0, then rising."""
    return min(decay, 1.0 - step ** (-2 / 3))


def average_by_hand(states, decay):
    """The recursion in float64 over the states after each step."""
    average = {}
    for step, state in enumerate(states, start=1):
        d = decay_by_hand(step, decay)
        for key, value in state.items():
            if not value.is_floating_point():
                average[key] = value
            elif step == 1:
                average[key] = value.double()  # d = 0: the start is forgotten
            else:
                average[key] = d * average[key] + (1 - d) * value.double()
    return average


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in found.items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(value, expected[key])


def test_decays_by_hand():
    """1 − s^(−2/3): 0, 0.37, 0.52 … up to its final value."""
    found = [round(decay_by_hand(step, 0.9), 4) for step in (1, 2, 3, 8, 27, 31, 32, 1000)]
    assert found == [0.0, 0.37, 0.5193, 0.75, 0.8889, 0.8987, 0.9, 0.9]


@pytest.mark.parametrize("decay", [0.3, 0.5, 0.9, 0.9999])
def test_it_is_the_recursion_by_hand(decay):
    model = make_model()
    average, states = WeightAverage(model, decay=decay), []
    assert states_equal(copy_of(average.model), copy_of(model))
    for step in range(1, 13):
        move(model, step)
        states.append(copy_of(model))
        average.update(model)
        assert_close(copy_of(average.model), average_by_hand(states, decay))


def test_one_step_is_where_the_model_is():
    model = make_model()
    average = WeightAverage(model, decay=0.999)
    start = copy_of(average.model)
    move(model, 1)
    average.update(model)
    assert states_equal(copy_of(average.model), copy_of(model))
    assert not states_equal(copy_of(average.model), start)


def test_parameters_and_statistics_are_averaged_and_counts_are_copied():
    model = make_model()
    average = WeightAverage(model, decay=0.999)
    for step in (1, 2):
        before = copy_of(model)
        move(model, step)
        average.update(model)
    found, now = copy_of(average.model), copy_of(model)
    kinds = {"net.conv1.0.weight", "net.bn1.running_mean", "net.bn1.running_var", "net.fc.bias"}
    assert kinds <= found.keys()
    d = decay_by_hand(2, 0.999)
    for key, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(
                value, d * before[key] + (1 - d) * now[key], rtol=1e-5, atol=1e-5
            )
            assert not torch.equal(value, now[key])
        else:
            assert key.endswith("num_batches_tracked")
            assert value.item() == now[key].item() == 3
            assert value.dtype == torch.int64


def test_the_model_is_not_touched_and_shares_nothing():
    model = make_model().train()
    average = WeightAverage(model, decay=0.5)
    before = copy_of(model)
    state = torch.get_rng_state()
    for _ in range(3):
        average.update(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert states_equal(copy_of(model), before)
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in average.model.modules())
    own = {value.data_ptr() for value in model.state_dict().values()}
    assert not own & {value.data_ptr() for value in average.model.state_dict().values()}
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_the_average_can_be_measured_like_the_model():
    model = make_model().eval()
    average = WeightAverage(model, decay=0.5)
    images = torch.randint(0, 256, (4, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(average.model(images.byte()), model(images.byte()))
    assert average.model.name == model.name
    assert average.model.num_classes == model.num_classes


@pytest.mark.parametrize("done", [0, 1, 2, 7])
def test_a_state_goes_on_to_the_same_bits(done):
    """The number of updates is part of it: the decay still rises."""

    def run(average, model, steps):
        for step in steps:
            move(model, step)
            average.update(model)

    model = make_model()
    never = WeightAverage(model, decay=0.9)
    run(never, model, range(1, done + 1))
    stored = io.BytesIO()
    torch.save({"average": never.state(), "model": model.state_dict()}, stored)
    run(never, model, range(done + 1, done + 5))

    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    other = make_model(seed=9)
    again = WeightAverage(other, decay=0.9)
    other.load_state_dict(state["model"])
    again.restore(state["average"])
    assert states_equal(copy_of(again.model), dict(state["average"]["model"]))
    run(again, other, range(done + 1, done + 5))
    assert states_equal(copy_of(again.model), copy_of(never.model))
    assert again.state()["num_updates"] == never.state()["num_updates"] == done + 4
    if done:  # without it the average would start anew
        fresh = WeightAverage(other, decay=0.9)
        fresh.restore({**state["average"], "num_updates": 0})
        fresh.update(other)
        assert states_equal(copy_of(fresh.model), copy_of(other))
        assert not states_equal(copy_of(again.model), copy_of(other))


def test_a_restored_average_shares_nothing_with_the_state_it_came_from():
    model = make_model()
    average = WeightAverage(model, decay=0.9)
    state = {"model": copy_of(model), "num_updates": 5}
    before = {key: value.clone() for key, value in state["model"].items()}
    average.restore(state)
    move(model, 1)
    average.update(model)
    assert states_equal(state["model"], before)


def test_a_layer_by_hand():
    """Weights 0, then 1, 2 and 4 after three steps: 1, then 0.37 · 1 + 0.63 · 2 and so on."""
    layer = nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer, decay=0.5)
    found = []
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(layer.weight, value)
        average.update(layer)
        found.append(average.model.weight.item())
    second = 0.3700394751 * 1 + 0.6299605249 * 2
    # 1 − 3^(−2/3) would be 0.519: the final decay of 0.5 is reached.
    assert found == pytest.approx([1.0, second, 0.5 * second + 0.5 * 4], rel=1e-6)
