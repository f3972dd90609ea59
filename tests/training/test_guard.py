"""The guard holds the optimizer back from the first loss that is not finite, on the device."""

import copy
import math
import re

import pytest
import torch
from torch import nn

from distillation.base.errors import DistillationError
from distillation.training.guard import NonFiniteGuard, NonFiniteLossError
from distillation.training.optimizer import make_optimizer

NEVER = 10**9
FUSED = ("adamw", "adam", "sgd", "momentum", "adagrad")
OTHERS = ("lion", "lamb", "muon", "lookahead_adamw")


class Training:
    """A small net with its optimizer and guard, and steps whose loss can be spoiled."""

    def __init__(self, optimizer="adamw", *, interval=None, **options):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.optimizer = make_optimizer(
            [self.net], learning_rate=0.1, weight_decay=0.1, name=optimizer, options=options
        )
        self.guard = NonFiniteGuard(self.optimizer, name="exp1")
        if interval is not None:  # on the CPU the host looks at every step
            self.guard._interval = interval

    def step(self, *, step, epoch=1, factor=1.0, **more):
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        label = self.net(inputs).square().mean()
        terms = {"loss": label * factor, "label": label}
        terms |= {name: torch.tensor(value) for name, value in more.items()}
        self.optimizer.zero_grad()
        terms["loss"].backward()
        self.guard.watch(terms, epoch=epoch, step=step)
        self.optimizer.step()

    def state(self):
        """Everything an optimizer's step changes: weights, moments, counters."""
        state = self.optimizer.state_dict()["state"]
        kept = [value for values in state.values() for value in values.values()]
        return copy.deepcopy(
            [*self.net.state_dict().values(), *(torch.as_tensor(value) for value in kept)]
        )


def equal(first, second):
    assert len(first) == len(second) > 4  # there are moments
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_finite_losses_train_as_without_a_guard():
    guarded, plain = Training(), Training()
    del plain.optimizer.found_inf
    plain.guard.watch = lambda *args, **options: None
    for step in range(1, 6):
        guarded.step(step=step)
        plain.step(step=step)
        guarded.guard.check(epoch=1)
    assert equal(guarded.state(), plain.state())


@pytest.mark.parametrize("factor", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("optimizer", [*FUSED, *OTHERS])
def test_on_the_cpu_the_step_itself_is_stopped(optimizer, factor):
    training = Training(optimizer)
    training.step(step=1)
    before = training.state()
    with pytest.raises(NonFiniteLossError, match=f"epoch 4, step 2: loss = {factor}, label = "):
        training.step(step=2, epoch=4, factor=factor, label=factor)
    assert equal(training.state(), before)


@pytest.mark.parametrize("option", ["foreach", "differentiable"])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "adagrad"])
def test_torchs_own_that_is_not_fused_trains_and_is_stopped(optimizer, option):
    training = Training(optimizer, **{option: option == "foreach"}, fused=False)
    training.step(step=1)
    before = training.state()
    with pytest.raises(NonFiniteLossError, match="step 2: loss = nan"):
        training.step(step=2, factor=math.nan)
    assert equal(training.state(), before)


@pytest.mark.parametrize("factor", [math.inf, math.nan])
@pytest.mark.parametrize("optimizer", FUSED)
def test_where_the_host_does_not_look_a_fused_optimizer_is_held_back(optimizer, factor):
    """As on a GPU: the step with the bad loss is called, and does nothing."""
    training = Training(optimizer, interval=NEVER)
    training.step(step=1)
    before = training.state()
    training.step(step=2, factor=factor)
    gradients = [parameter.grad for parameter in training.net.parameters()]
    assert not any(torch.isfinite(gradient).all() for gradient in gradients)
    assert equal(training.state(), before)


@pytest.mark.parametrize("optimizer", [*FUSED, *OTHERS])
def test_on_a_device_the_host_looks_at_every_step_of_what_cannot_be_held_back(optimizer):
    net = nn.Linear(4, 4, device="meta")
    made = make_optimizer([net], learning_rate=0.1, weight_decay=0.1, name=optimizer)
    assert (NonFiniteGuard(made, name="exp1")._interval > 1) == (optimizer in FUSED)


def test_the_steps_behind_a_bad_one_are_held_back_too():
    training = Training(interval=NEVER)
    training.step(step=1)
    before = training.state()
    training.step(step=2, factor=math.nan)
    for step in range(3, 6):
        training.step(step=step)
        assert equal(training.state(), before)
    with pytest.raises(NonFiniteLossError):
        training.guard.check(epoch=1)


def test_a_bad_first_step_leaves_the_weights_and_empty_moments():
    training = Training(interval=NEVER)
    weights = copy.deepcopy(training.net.state_dict())
    training.step(step=1, factor=math.inf)
    assert all(torch.equal(weights[key], value) for key, value in training.net.state_dict().items())
    for values in training.optimizer.state_dict()["state"].values():
        assert all(not value.any() for value in values.values())


def test_the_message_names_the_first_bad_step_and_its_terms():
    training = Training(interval=NEVER)
    training.step(step=1, logit=2.0, feature=1.0)
    training.step(step=2, logit=math.inf, feature=-math.inf, factor=math.nan)
    training.step(step=3, logit=math.nan, feature=1.0, factor=math.inf)
    training.step(step=4, logit=2.0, feature=1.0)
    message = (
        "exp1: the loss is not finite in epoch 3, step 2: loss = nan, logit = inf, "
        "feature = -inf; a lower learning rate, or less weight on what is not finite, may help"
    )
    for _ in range(2):  # it is not forgotten by being asked
        with pytest.raises(NonFiniteLossError, match=f"^{re.escape(message)}$"):
            training.guard.check(epoch=3)


def test_the_host_looks_once_in_a_while_and_at_the_end():
    training = Training(interval=3)
    training.step(step=1, factor=math.inf)
    training.step(step=2)
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 1: loss = inf;"):
        training.step(step=3)
    training = Training(interval=3)
    for step in range(1, 4):
        training.step(step=step)
    training.step(step=4, factor=math.inf)
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 4: loss = inf;"):
        training.guard.check(epoch=1)


def test_a_term_that_is_not_part_of_the_loss_stops_nothing():
    """With feature_weight 0 a term may be anything as long as the sum is finite."""
    training = Training()
    training.step(step=1, feature=1.0)
    before = training.state()
    training.step(step=2, feature=math.inf)
    training.guard.check(epoch=1)
    assert not equal(training.state(), before)


def test_without_a_step_there_is_nothing_to_say():
    Training().guard.check(epoch=1)


def test_the_error_is_one_a_user_can_put_right():
    assert issubclass(NonFiniteLossError, DistillationError)
