"""One training in several processes: the same samples and weights as in one, and one end for all.

Real processes on the CPU, connected by gloo.
"""

import contextlib
import dataclasses
import logging
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load

from distillation.base.errors import DistillationError
from distillation.base.params import make_params
from distillation.base.workspace import Workspace
from distillation.runs import launching
from distillation.runs.processes import ProcessPlan
from distillation.runs.side_by_side import SeedError, run_side_by_side
from distillation.runs.stage_progress import StageProgress
from tests.helpers.trainings import Tiny


def devices_of(tiny, number):
    return tuple("cpu" if tiny.device == "cpu" else f"cuda:{slot}" for slot in range(number))


def run(tiny, tiny_values, folder, num_devices, *, keeps=False):
    """Train in worker processes, as a stage does; returns what is left of it."""
    workspace = Workspace(
        root=folder, scratch=folder / ".scratch" if keeps else None, device_name="cpu"
    )
    params = make_params(
        {**tiny_values, "epochs": tiny.epochs, "batch_size": tiny.batch_size, "alpha": 0.5}
    )
    plan = ProcessPlan(num_processes=1, num_threads=1, devices=(devices_of(tiny, num_devices),))
    with StageProgress("x", 1) as progress:
        (left,) = run_side_by_side(
            "x", tiny, params, workspace, {0: "x"}, plan=plan, progress=progress
        )
    return left


def assert_alike(first, second, *, tolerance=1e-5):
    """The weights, the terms and the test logits are alike, and weights have moved."""
    weights, others = load(first.weights), load(second.weights)
    assert weights.keys() == others.keys()
    for key, value in weights.items():
        torch.testing.assert_close(value, others[key], rtol=tolerance, atol=tolerance, msg=key)
    torch.testing.assert_close(first.result.logits, second.result.logits, rtol=1e-3, atol=1e-3)
    for one, other in zip(first.result.history, second.result.history, strict=True):
        assert one.terms == pytest.approx(other.terms, rel=1e-4, abs=tolerance)
        assert one.validation.acc == other.validation.acc
    assert first.result.after.loss != pytest.approx(first.result.before.loss, abs=1e-3)


CASES = {
    "control": Tiny(),
    "uneven": Tiny(num_samples=50, batch_size=17),
    "mixed": Tiny(num_samples=50, batch_size=17, mixup=1.0, cutmix=1.0),
    "repeated": Tiny(num_samples=30, repeats_to=50, batch_size=17),
    "exp1": Tiny(method="exp1", num_samples=50, batch_size=17, num_unlabeled=20),
    "stored": Tiny(method="exp1", num_samples=50, batch_size=17, is_stored=True, mixup=1.0),
    "exp2": Tiny(method="exp2", num_samples=50, batch_size=17),
    "exp3": Tiny(method="exp3", num_samples=50, batch_size=17, ema_decay=0.9),
}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_to_the_weights_of_one(name, tiny_values, tmp_path):
    one, two = (run(CASES[name], tiny_values, tmp_path / str(n), n) for n in (1, 2))
    assert_alike(one, two)
    assert (one.environment["devices"], two.environment["devices"]) == (1, 2)


@pytest.mark.full
def test_compiled_steps_are_spread_too(tiny_values, tmp_path):
    tiny = Tiny(method="exp3", compiles=True)
    assert_alike(*(run(tiny, tiny_values, tmp_path / str(n), n) for n in (1, 2)))


def test_half_precision_is_spread_too(tiny_values, tmp_path):
    tiny = Tiny(precision="bf16", learning_rate=1e-3)
    histories = [run(tiny, tiny_values, tmp_path / str(n), n).result.history for n in (1, 2)]
    for one, two in zip(*histories, strict=True):
        assert one.terms == pytest.approx(two.terms, rel=0.05)  # 0.022 on a CPU with AMX


def drop_a_layer(training):
    """Leave weights without a gradient, as some of timm's models do."""
    training.model.net.unused = torch.nn.Linear(2, 2)


def test_weights_without_a_gradient_stay_as_they_are(tiny_values, tmp_path):
    tiny = Tiny(spoil=drop_a_layer, optimizer="adamw", learning_rate=1e-3)
    one, two = (load(run(tiny, tiny_values, tmp_path / str(n), n).weights) for n in (1, 2))
    assert torch.equal(one["unused.weight"], two["unused.weight"])


def test_patience_ends_all(tiny_values, tmp_path):
    tiny = Tiny(epochs=40, patience_epochs=3)
    one, two = (run(tiny, tiny_values, tmp_path / str(n), n) for n in (1, 2))
    assert len(one.result.history) == len(two.result.history) < 40


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("compiles", [False, True])
def test_two_gpus_train_to_the_weights_of_one(compiles, tiny_values, tmp_path):
    tiny = Tiny(method="exp3", student="test_resnet", device="cuda", compiles=compiles)
    one, two = (run(tiny, tiny_values, tmp_path / str(n), n) for n in (1, 2))
    assert_alike(one, two, tolerance=1e-3)


def test_a_launcher_that_knows_no_grace_is_asked_for_none(monkeypatch):
    """As torch's before 2.12."""
    assert set(launching._grace()) <= {"shutdown_timeout"}

    @dataclasses.dataclass
    class Former:
        min_nodes: int

    monkeypatch.setattr(launching, "LaunchConfig", Former)
    assert launching._grace() == {}


@pytest.mark.parametrize(
    ("tiny", "why"),
    [
        (Tiny(method="similarity"), "its loss compares the images of a batch"),
        pytest.param(
            Tiny(method="dist"), "its loss compares the images of a batch", marks=pytest.mark.full
        ),
        (Tiny(batch_size=3), "3 images in a batch are too few for 2"),
    ],
    ids=["similarity", "dist", "small"],
)
def test_what_cannot_be_spread_trains_on_one_device(tiny, why, tiny_values, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    one, two = (run(tiny, tiny_values, tmp_path / str(n), n) for n in (1, 2))
    assert caplog.text.count(f"x: trained on one device, since {why}") == 1
    assert two.weights == one.weights
    assert two.environment["devices"] == 1


def stop_after_one_epoch(training):
    objective, steps = training.objective, 0

    def count(*_):
        nonlocal steps
        steps += 1
        if steps > training.num_steps // 2:
            raise StoppedError("stopped")

    objective.register_forward_pre_hook(count)


class StoppedError(DistillationError):
    """Ends a training in its second epoch."""


@pytest.mark.parametrize(
    ("before", "after"), [(1, 2), (2, 1), pytest.param(2, 2, marks=pytest.mark.full)]
)
def test_goes_on_with_another_number_of_devices(before, after, tiny_values, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    tiny = Tiny(num_samples=50, batch_size=17, ema_decay=0.9, optimizer="adamw", learning_rate=1e-3)
    stopped = dataclasses.replace(tiny, spoil=stop_after_one_epoch)
    with pytest.raises(SeedError, match=r"^stopped$"):
        run(stopped, tiny_values, tmp_path, before, keeps=True)
    resumed = run(tiny, tiny_values, tmp_path, after, keeps=True)
    assert "x: going on after epoch 1 of 2" in caplog.text
    assert_alike(run(tiny, tiny_values, tmp_path / "undisturbed", 1), resumed, tolerance=1e-4)


def test_dropout_goes_on_to_the_same_bits(tiny_values, tmp_path):
    tiny = Tiny(drop_rate=0.3)
    with pytest.raises(SeedError):
        run(
            dataclasses.replace(tiny, spoil=stop_after_one_epoch),
            tiny_values,
            tmp_path,
            2,
            keeps=True,
        )
    resumed = run(tiny, tiny_values, tmp_path, 2, keeps=True)
    whole = run(tiny, tiny_values, tmp_path / "undisturbed", 2)
    assert resumed.weights == whole.weights
    assert whole.weights != run(tiny, tiny_values, tmp_path / "one", 1).weights


def on_rank_1(act):
    """Return a hook that acts in the second rank's fourth step."""
    steps = 0

    def hook(*_):
        nonlocal steps
        steps += 1
        if steps == 4 and os.environ["RANK"] == "1":
            return act()

    return hook


def fail(training):
    training.objective.register_forward_pre_hook(on_rank_1(lambda: 1 / 0))


def run_out(training):
    def act():
        raise torch.OutOfMemoryError("CUDA out of memory")

    training.objective.register_forward_pre_hook(on_rank_1(act))


def diverge(training):
    training.objective.register_forward_hook(
        lambda module, arguments, terms: on_rank_1_nan(training, terms)
    )
    training.objective.steps = 0


def on_rank_1_nan(training, terms):
    training.objective.steps += 1
    if training.objective.steps == 4 and os.environ["RANK"] == "1":
        return {name: value * math.nan for name, value in terms.items()}
    return None


def kill(training):
    training.objective.register_forward_pre_hook(
        on_rank_1(lambda: os.kill(os.getpid(), signal.SIGKILL))
    )


def kill_first(training):
    steps = 0

    def hook(*_):
        nonlocal steps
        steps += 1
        if steps == 4 and os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    training.objective.register_forward_pre_hook(hook)


def kill_launcher(training):
    def act():
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(5)  # the others wait for this rank's gradients meanwhile

    training.objective.register_forward_pre_hook(on_rank_1(act))


BY_SIGKILL = r"^x: its process ended by SIGKILL, as happens when memory runs out; with "


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (fail, RuntimeError, r"^x failed in its process:\n(.*\n)*ZeroDivisionError: "),
        pytest.param(
            run_out,
            SeedError,
            r"^out of memory \(CUDA out of memory\); use ",
            marks=pytest.mark.full,
        ),
        pytest.param(
            diverge,
            SeedError,
            r"^x: the loss is not finite in epoch 2, step 1: loss = nan; a ",
            marks=pytest.mark.full,
        ),
        pytest.param(kill, SeedError, BY_SIGKILL, marks=pytest.mark.full),
        (kill_first, SeedError, BY_SIGKILL),
        pytest.param(kill_launcher, SeedError, BY_SIGKILL, marks=pytest.mark.full),
    ],
)
def test_the_end_of_one_ends_all_and_the_same_command_goes_on(
    spoil, error, message, tiny_values, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    tiny = Tiny(epochs=2)
    start = time.monotonic()
    with pytest.raises(error, match=message):
        run(dataclasses.replace(tiny, spoil=spoil), tiny_values, tmp_path, 2, keeps=True)
    assert time.monotonic() - start < 15
    assert_no_process_is_left()
    resumed = run(tiny, tiny_values, tmp_path, 2, keeps=True)
    assert "x: going on after epoch 1 of 2" in caplog.text
    assert resumed.weights == run(tiny, tiny_values, tmp_path / "undisturbed", 2).weights


def assert_no_process_is_left():
    """No process but multiprocessing's own server and tracker."""
    import psutil  # which a GPU machine may lack; its test needs none

    deadline = time.monotonic() + 5
    while True:
        left = [
            process
            for process in psutil.Process().children(recursive=True)
            if process.status() != psutil.STATUS_ZOMBIE
            and process.parent() not in (None, psutil.Process())
        ]
        if not left:
            return
        assert time.monotonic() < deadline, [process.cmdline() for process in left]
        time.sleep(0.05)


PROGRAM = """
import signal
import sys
from pathlib import Path
import yaml
from distillation.base.command import run_command
from tests.conftest import REPOSITORY, TINY
from tests.helpers.trainings import Tiny
from tests.runs.test_several_devices import run
import logging

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs behind a shell ignores it
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    values = {**yaml.safe_load((REPOSITORY / "params.yaml").read_text()), **TINY}
    work = lambda: run(Tiny(epochs=int(sys.argv[2])), values, Path(sys.argv[1]), 2, keeps=True)
    sys.exit(run_command(work, if_interrupted="on with it"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whom", "status"),
    [
        (signal.SIGINT, os.killpg, 130),
        pytest.param(signal.SIGTERM, os.kill, 143, marks=pytest.mark.full),
        pytest.param(signal.SIGKILL, os.kill, -signal.SIGKILL, marks=pytest.mark.full),
    ],
)
def test_a_signal_to_the_stage_ends_all(number, whom, status, tmp_path, repository):
    import psutil

    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path, "5000"],
        env={**os.environ, "PYTHONPATH": str(repository), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert any("epoch 2/5000" in line for line in process.stdout)
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 4  # multiprocessing's two, the launcher, the ranks
        whom(process.pid, number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == status
        words = {130: "interrupted: on with it\n", 143: "terminated: on with it\n"}
        assert errors == words.get(status, "")
        assert psutil.wait_procs(started, timeout=10)[1] == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert list(tmp_path.glob(".scratch/x/*/state"))
