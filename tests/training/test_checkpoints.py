"""States of trainings: whole or not at all, one holder a folder, only of the same training."""

import contextlib
import fcntl
import logging
import math
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from distillation.base import checksums
from distillation.losses.exp3 import RegressorFeatureLoss
from distillation.models.creation import create_classifier
from distillation.training.checkpoints import (
    StatesError,
    TrainingStates,
    fingerprint_training,
    remove_states,
)
from distillation.training.optimizer import make_optimizer
from distillation.training.values import CODE

FINGERPRINT = "0123456789abcdef" * 4
FOLDER = FINGERPRINT[:20]
TIMEOUT_SECONDS = 60

forked = multiprocessing.get_context("fork")  # a process that need not import torch anew


@pytest.fixture
def open_states(tmp_path):
    """Give the place of a training's state, as another process would."""

    def build(fingerprint=FINGERPRINT, stage="exp1"):
        return TrainingStates(tmp_path, stage=stage, fingerprint=fingerprint)

    return build


@pytest.fixture
def stage_directory(tmp_path):
    return tmp_path / "exp1"


def state_of(number):
    return {"history": [{"epoch": number}], "weights": torch.arange(1000) + number}


def number_of(state):
    number = state["history"][0]["epoch"]
    assert torch.equal(state["weights"], torch.arange(1000) + number)
    return number


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


# What is saved comes back


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.stride() == expected.stride()
        assert found.device.type == "cpu"
        assert torch.equal(found, expected.detach())
        assert not found.requires_grad
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert_same(mine, theirs)
    else:
        assert found == expected or (found != found and expected != expected)


def test_a_state_comes_back_as_it_was(open_states):
    generator = torch.Generator().manual_seed(3)
    state = {
        "tensors": [
            torch.randn(2, 3, 4, 5, generator=generator),
            torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            torch.randn(4, 3).t(),
            torch.tensor(7),
            torch.tensor([True, False]),
            torch.randn(3).bfloat16(),
            torch.tensor([math.inf, -0.0, 1e-45]),
            torch.empty(0, 3),
            generator.get_state(),
        ],
        "numbers": [0, -3, 2**70, 0.1, math.inf, -math.inf, math.nan, True, None],
        "texts": {"ü – é": "", "empty": [], "nested": {1: {"2": (3, "4")}}},
        "history": [{"epoch": 1, "terms": {"loss": 0.1 + 0.2}}],
    }
    with open_states() as states:
        states.save(state)
    with open_states() as states:
        assert_same(states.load(), state)
        assert states.history() == [{"epoch": 1, "terms": {"loss": 0.30000000000000004}}]


def test_a_models_and_an_optimizers_state_come_back_with_their_memory_format(open_states):
    model = create_classifier("test_resnet", num_classes=3, image_size=12, seed=0)
    optimizer = make_optimizer(nn.ModuleList([model]), learning_rate=1e-3, weight_decay=0.1)
    images = torch.randint(0, 256, (4, 3, 12, 12)).to(torch.uint8)
    model(images).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    is_channels_last = [
        value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()
        for value in state["model"].values()
        if value.ndim == 4
    ]
    assert any(is_channels_last)
    with open_states() as states:
        states.save(state)
        found = states.load()
    assert_same(found, state)
    other = create_classifier("test_resnet", num_classes=3, image_size=12, seed=1)
    other.load_state_dict(found["model"])
    with torch.no_grad():
        assert torch.equal(other.eval()(images), model.eval()(images))


def test_the_last_state_counts_and_is_there_for_the_next_holder(open_states, stage_directory):
    with open_states() as states:
        assert states.load() is None
        assert states.history() == []
        for number in (1, 2, 3):
            states.save(state_of(number))
            assert number_of(states.load()) == number
    assert names_in(stage_directory) == [FOLDER]
    assert names_in(stage_directory / FOLDER) == ["lock", "state"]
    with open_states() as states:
        assert number_of(states.load()) == 3
        assert states.history() == [{"epoch": 3}]


def test_stages_and_fingerprints_have_their_own_states(open_states, tmp_path):
    keys = [(FINGERPRINT, "exp1"), (FINGERPRINT, "exp2"), ("f" * 64, "exp1")]
    for number, key in enumerate(keys):
        with open_states(*key) as states:
            assert states.load() is None
            states.save(state_of(number))
    for number, key in enumerate(keys):
        with open_states(*key) as states:
            assert number_of(states.load()) == number
    assert names_in(tmp_path) == ["exp1", "exp2"]


def test_remove_leaves_nothing_of_the_training(open_states, tmp_path, stage_directory):
    with open_states("f" * 64) as other:
        other.save(state_of(9))
    with open_states() as states:
        states.save(state_of(1))
        states.began_in({"commit": "c"})
        (stage_directory / FOLDER / "state.tmp").write_bytes(b"left behind")
        remove_states(states.directory)
        assert states.load() is not None, "it is in use"
    remove_states(stage_directory / FOLDER)
    assert names_in(stage_directory) == ["f" * 20]
    remove_states(stage_directory / FOLDER)
    with open_states() as states:
        assert states.load() is None


def test_of_equal_trainings_that_run_beside_each_other_each_removes_its_own(open_states):
    with open_states() as killed:
        killed.save(state_of(5))
        with open_states() as finished:
            finished.save(state_of(9))
    remove_states(finished.directory)
    with open_states() as states:
        assert number_of(states.load()) == 5


def test_where_a_training_goes_on_it_began_in_what_it_began_in(open_states):
    first, later = {"commit": "c", "threads": 1}, {"commit": "d", "threads": 2}
    with open_states() as states:
        assert states.began_in(first) == first
        states.save(state_of(1))
    with open_states() as states:
        assert states.began_in(later) == first
        (states.directory / "environment.json").write_text("{")  # cut off by something else
        assert states.began_in(later) == later


def test_outside_its_context_there_is_no_state(open_states):
    states = open_states()
    for use in (states.load, lambda: states.began_in({}), lambda: states.save({})):
        with pytest.raises(AssertionError, match="outside its context"):
            use()


# Whole or not at all


def test_half_a_file_beside_the_state_is_ignored(open_states, stage_directory):
    with open_states() as states:
        (stage_directory / FOLDER / "state.tmp").write_bytes(b"half")
        assert states.load() is None
        states.save(state_of(1))
        assert names_in(stage_directory / FOLDER) == ["lock", "state"]
        content = states.path.read_bytes()
        (stage_directory / FOLDER / "state.tmp").write_bytes(content[:100])
    with open_states() as states:
        assert number_of(states.load()) == 1
        states.save(state_of(2))
        assert number_of(states.load()) == 2


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_a_save_that_fails_keeps_the_earlier_state(open_states, monkeypatch, error):
    def fail(descriptor):
        raise error

    with open_states() as states:
        states.save(state_of(1))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(type(error)):
                states.save(state_of(2))
        assert number_of(states.load()) == 1
        with pytest.raises((AttributeError, pickle.PicklingError)):
            states.save({"history": [], "function": lambda: 0})  # what no file can hold
        assert number_of(states.load()) == 1
        states.save(state_of(3))
        assert number_of(states.load()) == 3


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_a_process_killed_while_it_saves_leaves_the_earlier_state(
    open_states, stage_directory, monkeypatch, where
):
    def save_and_die():
        with open_states() as states:
            states.save(state_of(1))
            monkeypatch.setattr(where, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
            states.save(state_of(2))

    process = forked.Process(target=save_and_die, daemon=True)
    process.start()
    process.join(TIMEOUT_SECONDS)
    assert process.exitcode == -signal.SIGKILL
    assert names_in(stage_directory / FOLDER) == ["lock", "state", "state.tmp"]
    with open_states() as states:
        assert number_of(states.load()) == 1
        states.save(state_of(3))
        assert number_of(states.load()) == 3
        assert names_in(stage_directory / FOLDER) == ["lock", "state"]


# States that cannot be used


@pytest.fixture
def saved(open_states):
    """Give the file of a state and its content."""
    with open_states() as states:
        states.save(state_of(1))
        return states.path, states.path.read_bytes()


def assert_is_set_aside(open_states, path, caplog, *, name=f"{FOLDER}.0", reason=""):
    """Load what is no state: a warning, and the file moved as it was."""
    content, aside = path.read_bytes(), path.parents[1] / "set-aside" / name
    caplog.clear()
    with caplog.at_level(logging.WARNING), open_states() as states:
        assert states.path == path
        assert states.load() is None
        assert states.load() is None
        assert states.history() == []
    (message,) = caplog.messages
    assert message.startswith(f"WARNING: exp1: {path} cannot be used ({reason}")
    assert f"it was moved to {aside} and the training starts from the beginning" in message
    assert not path.exists()
    assert aside.read_bytes() == content


@pytest.mark.parametrize("length", [0, 1, 30, 40, 60, 100, 130, 0.5, -1], ids="to {}".format)
def test_a_file_cut_short_is_set_aside(length, saved, open_states, caplog):
    path, content = saved
    length = int(length * len(content)) if isinstance(length, float) else length
    assert len(content[:length]) < len(content)
    path.write_bytes(content[:length])
    assert_is_set_aside(open_states, path, caplog)


@pytest.mark.parametrize(
    "position", [0, 29, 30, 40, 50, 51, 70, 115, 116, 200, 0.5, -1], ids="at {}".format
)
def test_a_flipped_byte_is_noticed(position, saved, open_states, caplog):
    path, content = saved
    position = int(position * len(content)) if isinstance(position, float) else position
    damaged = bytearray(content)
    damaged[position] ^= 0x01
    path.write_bytes(damaged)
    assert_is_set_aside(open_states, path, caplog)


def torch_file(folder):
    torch.save(state_of(1), folder / "state")


def text_file(folder):
    (folder / "state").write_text("epoch 1\n" * 100)


def binary_file(folder):
    (folder / "state").write_bytes(bytes(range(256)) * 4)


def header_alone(folder):
    content = (folder / "state").read_bytes()
    (folder / "state").write_bytes(content.partition(b"\n")[0])


def longer(folder):
    with (folder / "state").open("ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (torch_file, "it is no training state"),
        (text_file, "it is no training state"),
        (binary_file, "it is no training state"),
        (header_alone, "it is damaged or cut short"),
        (longer, "it is damaged or cut short"),
    ],
)
def test_a_file_that_is_no_state_is_set_aside(write, reason, saved, open_states, caplog):
    path, _ = saved
    write(path.parent)
    assert_is_set_aside(open_states, path, caplog, reason=reason)


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_set_aside(put, saved, open_states, caplog):
    path, _ = saved
    path.unlink()
    put(path)
    with caplog.at_level(logging.WARNING), open_states() as states:
        assert states.load() is None
    assert "cannot be used" in caplog.text
    assert not path.exists()


def test_what_stands_in_the_place_of_the_folder_set_aside_is_named(saved, open_states):
    path, _ = saved
    path.write_bytes(b"damaged")
    (path.parents[1] / "set-aside").symlink_to("nowhere")
    with (
        open_states() as states,
        pytest.raises(StatesError, match=r"/set-aside: no folder that .* remove what stands"),
    ):
        states.load()


def test_the_state_of_another_training_is_set_aside(saved, open_states, caplog):
    path, _ = saved
    with open_states("f" * 64) as other:
        other.save(state_of(5))
        shutil.copy(other.path, path)
    reason = f"it belongs to another training, {'f' * 20})"
    assert_is_set_aside(open_states, path, caplog, reason=reason)
    with open_states("f" * 64) as other:
        assert number_of(other.load()) == 5


def test_what_is_set_aside_is_never_overwritten_nor_removed(saved, open_states, caplog):
    path, content = saved
    bad = [content[:-1], content[:50], b""]
    for number, each in enumerate(bad):
        path.write_bytes(each)
        assert_is_set_aside(open_states, path, caplog, name=f"{FOLDER}.{number}")
        with open_states() as states:
            states.save(state_of(number))
            assert number_of(states.load()) == number
    remove_states(path.parent)
    aside = path.parents[1] / "set-aside"
    assert names_in(path.parents[1]) == ["set-aside"]
    assert [(aside / name).read_bytes() for name in names_in(aside)] == bad


# One holder a folder


def test_two_holders_have_different_folders(open_states, stage_directory):
    with open_states() as first:
        first.save(state_of(1))
        with open_states() as second, open_states() as third:
            folders = [each.path.parent.name for each in (first, second, third)]
            assert folders == [FOLDER, f"{FOLDER}-1", f"{FOLDER}-2"]
            assert second.load() is None
            second.save(state_of(2))
            first.save(state_of(3))
            assert number_of(second.load()) == 2
            third.save(state_of(4))
            assert [number_of(each.load()) for each in (first, second)] == [3, 2]
        # The second is done, the first is not.
        with open_states() as next_one:
            assert next_one.path.parent.name == f"{FOLDER}-1"
            assert number_of(next_one.load()) == 2
        remove_states(next_one.directory)
        remove_states(third.directory)
        assert number_of(first.load()) == 3
    with open_states() as next_one:
        assert next_one.path.parent.name == FOLDER
        assert number_of(next_one.load()) == 3
    assert names_in(stage_directory) == [FOLDER]


def test_a_failing_training_gives_its_folder_back(open_states):
    def fail():
        with open_states() as states:
            states.save(state_of(1))
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
    with open_states() as states:
        assert states.path.parent.name == FOLDER
        assert number_of(states.load()) == 1


def test_a_damaged_state_of_a_second_holder_is_set_aside_under_its_own_name(
    open_states, stage_directory
):
    with open_states(), open_states() as second:
        second.path.write_bytes(b"")
        assert second.load() is None
    assert names_in(stage_directory / "set-aside") == [f"{FOLDER}-1.0"]


def test_the_lock_goes_with_a_killed_process(open_states):
    ready, theirs = forked.Pipe(duplex=False)

    def hold():
        with open_states() as states:
            states.save(state_of(1))
            theirs.send(states.path.parent.name)
            time.sleep(TIMEOUT_SECONDS)

    process = forked.Process(target=hold, daemon=True)
    process.start()
    assert ready.poll(TIMEOUT_SECONDS)
    assert ready.recv() == FOLDER
    with open_states() as states:
        assert states.path.parent.name == f"{FOLDER}-1"
        assert states.load() is None
    process.kill()
    process.join(TIMEOUT_SECONDS)
    assert process.exitcode == -signal.SIGKILL
    with open_states() as states:
        assert states.path.parent.name == FOLDER
        assert number_of(states.load()) == 1


def test_a_program_that_is_started_does_not_keep_the_lock(open_states):
    with open_states():
        program = subprocess.Popen(["sleep", str(TIMEOUT_SECONDS)], close_fds=False)
    try:
        with open_states() as states:
            assert states.path.parent.name == FOLDER
    finally:
        program.kill()
        program.wait()


def test_many_processes_never_share_a_folder(open_states, tmp_path):
    """Each takes a folder, saves its number, looks whether it is still there, and goes."""
    num_processes, num_rounds = 8, 20
    start = forked.Barrier(num_processes)
    reports = forked.SimpleQueue()

    def work(number):
        chance, folders = random.Random(number), []
        try:
            start.wait(TIMEOUT_SECONDS)
            for _ in range(num_rounds):
                folders.append(hold(number, chance))
            reports.put((folders, None, ""))
        except BaseException as error:
            reports.put((folders, type(error), traceback.format_exc()))

    def hold(number, chance):
        with open_states() as states:
            owner = tmp_path / f"owner of {states.path.parent.name}"
            assert not owner.exists(), owner.read_text()
            owner.write_text(f"{number} has it")
            states.load()
            states.save(state_of(number))
            time.sleep(chance.uniform(0, 0.003))
            assert number_of(states.load()) == number
            assert owner.read_text() == f"{number} has it"
            owner.unlink()
        if chance.random() < 0.7:
            remove_states(states.directory)
        return states.path.parent.name

    processes = [
        forked.Process(target=work, args=(number,), daemon=True) for number in range(num_processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_SECONDS)
    assert [process.exitcode for process in processes] == [0] * num_processes
    found = [reports.get() for _ in processes]
    errors = {kind: trace for _, kind, trace in found if kind is not None}
    assert errors.keys() <= {FileExistsError}, "\n".join(errors.values())
    used = {folder for folders, *_ in found for folder in folders}
    assert {FOLDER, f"{FOLDER}-1"} <= used  # they did meet
    assert used <= {FOLDER, *(f"{FOLDER}-{i}" for i in range(1, num_processes))}
    if errors:
        raise FileExistsError(errors[FileExistsError])
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(open_states()) for _ in range(num_processes)]
        assert len({states.path for states in held}) == num_processes
        for states in held:  # what was left is whole
            state = states.load()
            assert state is None or number_of(state) in range(num_processes)


# What may happen between two lines when another process is done just then


def test_a_folder_removed_while_it_is_made_is_made_again(open_states, monkeypatch):
    real, calls = os.mkdir, []

    def mkdir(path, *arguments, **options):
        try:
            real(path, *arguments, **options)
        except FileExistsError:
            if Path(path).name == FOLDER and not calls:
                calls.append(path)
                shutil.rmtree(path)  # its holder's `remove`
            raise

    with open_states():
        pass
    monkeypatch.setattr(os, "mkdir", mkdir)
    with open_states() as states:
        assert states.path.parent.name == FOLDER
        states.save(state_of(1))
        assert number_of(states.load()) == 1
    assert calls


def test_a_lock_removed_while_it_is_taken_is_taken_again(open_states, monkeypatch):
    real, calls = fcntl.flock, []

    def flock(descriptor, operation):
        real(descriptor, operation)
        if not calls:
            calls.append(descriptor)
            (folder,) = Path(f"/proc/self/fd/{descriptor}").resolve().parents[:1]
            shutil.rmtree(folder)  # by a holder that was done just then

    monkeypatch.setattr(fcntl, "flock", flock)
    with open_states() as states:
        states.save(state_of(1))
        assert number_of(states.load()) == 1
    assert calls


@pytest.mark.parametrize("kind", ["file", "dangling link", "link to itself", "lock is a folder"])
@pytest.mark.parametrize("level", [0, 1])
def test_what_stands_in_the_place_of_a_folder_is_named(open_states, kind, level):
    with open_states() as states:
        folder = states.path.parent
    shutil.rmtree(folder.parent)
    place = [folder, folder.parent][level]
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        place.touch()
    elif kind == "lock is a folder":
        (folder / "lock").mkdir(parents=True)
    else:
        place.symlink_to("nowhere" if kind == "dangling link" else place.name)
    with pytest.raises(StatesError, match=r"no folder that a training's state can be kept in"):
        open_states().__enter__()


def test_remove_spares_the_next_holder(open_states, monkeypatch):
    """As soon as the lock's file is gone, another process may hold the folder."""
    real_unlink, next_holders = os.unlink, []

    def unlink(path, **options):
        real_unlink(path, **options)
        if Path(path).name == "lock" and not next_holders:
            next_holders.append(stack.enter_context(open_states()))
            next_holders[0].save(state_of(2))

    with contextlib.ExitStack() as stack:
        with open_states() as first:
            first.save(state_of(1))
        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink", unlink)
            remove_states(first.directory)
        (second,) = next_holders
        assert second.path.parent.name == FOLDER
        found = second.load()
        assert found is not None
        assert number_of(found) == 2


# Of what training a state is


def make_model(seed=0, name="test_resnet"):
    return create_classifier(name, num_classes=3, image_size=12, seed=seed)


def fingerprint(*, seed=0, name="test_resnet", regressor=None, code=CODE, **settings):
    modules = {"model": make_model(seed, name)}
    if regressor is not None:
        modules["trained_with_model"] = regressor
    given = {"recipe": {"epochs": 4, "learning_rate": 5e-3}, "data": "d" * 64, **settings}
    return fingerprint_training(modules, given, code=code)


def make_regressor(seed):
    torch.manual_seed(seed)
    return RegressorFeatureLoss(4, 8)


def test_the_same_training_has_the_same_fingerprint():
    found = fingerprint()
    assert len(found) == 64
    assert int(found, 16) >= 0
    torch.manual_seed(3)
    assert fingerprint() == found
    settings = {"data": "d" * 64, "recipe": {"learning_rate": 5e-3, "epochs": 4}}
    assert fingerprint_training({"model": make_model()}, settings, code=CODE) == found


def test_weights_statistics_and_settings_tell_trainings_apart():
    model = make_model()
    settings = {"recipe": {"epochs": 4}}

    def changed(key):
        other = make_model()
        with torch.no_grad():
            values = other.state_dict()[key].flatten()
            values[-1] += 1 if values.dtype == torch.int64 else 1e-6
        return fingerprint_training({"model": other}, settings, code=CODE)

    keys = ["net.fc.bias", "net.bn1.running_var", "net.bn1.num_batches_tracked"]
    found = [
        fingerprint_training({"model": model}, settings, code=CODE),
        fingerprint_training({"student": model}, settings, code=CODE),
        fingerprint_training({"model": model}, {"recipe": {"epochs": 5}}, code=CODE),
        fingerprint_training({"model": model}, {"recipe": {"epochs": 4.5}}, code=CODE),
        fingerprint_training({"model": model}, {**settings, "targets": None}, code=CODE),
        fingerprint_training({"model": make_model(1)}, settings, code=CODE),
        fingerprint_training({"model": make_model(name="test_efficientnet")}, settings, code=CODE),
        *(changed(key) for key in keys),
        *(fingerprint(regressor=make_regressor(seed)) for seed in (0, 1)),
        fingerprint(),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint_training({"model": make_model()}, settings, code=CODE) == found[0]


def test_another_torch_is_another_training(monkeypatch):
    before = fingerprint()
    monkeypatch.setattr(torch, "__version__", "2.0.0")
    assert fingerprint() != before


@pytest.fixture
def package(monkeypatch, tmp_path):
    """Return a copy of the package's code, which fingerprints are made of."""
    copy = tmp_path / "distillation"
    shutil.copytree(checksums.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(checksums, "PACKAGE", copy)
    return copy


CODE_OF_EXP2 = (*CODE, "distilling", "losses/logits.py", "losses/exp2.py")


def test_edited_code_is_another_training(package):
    before = fingerprint(code=CODE_OF_EXP2)
    edited = ("losses/exp2.py", "losses/logits.py", "training/loop.py", "models/classifier.py",
              "base/params.py", "data/rows.py", "distilling/objective.py")  # fmt: skip
    for name in edited:
        source = (package / name).read_bytes()
        (package / name).write_bytes(source + b"\n")
        assert fingerprint(code=CODE_OF_EXP2) != before, name
        (package / name).write_bytes(source)
        assert fingerprint(code=CODE_OF_EXP2) == before
    (package / "training" / "another.py").write_text("")
    assert fingerprint(code=CODE_OF_EXP2) != before


def test_where_the_code_lies_makes_no_difference(request):
    before = fingerprint()
    request.getfixturevalue("package")
    assert fingerprint() == before


def test_code_that_a_training_does_not_run_makes_no_difference(monkeypatch, package):
    """Another method's loss may be edited while a training waits to go on, and any be imported."""
    before = fingerprint(code=CODE_OF_EXP2)
    for name in ("losses/exp3.py", "losses/another.py", "report/page.py", "runs/method.py"):
        with (package / name).open("a", encoding="utf-8") as file:
            file.write("# edited\n")
        assert fingerprint(code=CODE_OF_EXP2) == before, name
    monkeypatch.setitem(sys.modules, "distillation.losses.one_more", types.ModuleType("x"))
    assert fingerprint(code=CODE_OF_EXP2) == before


PROGRAM = """
import torch

from distillation.models.creation import create_classifier
from distillation.training.checkpoints import fingerprint_training
from distillation.training.values import CODE

torch.set_num_threads(1)
model = create_classifier("test_resnet", num_classes=3, image_size=12, seed=0)
settings = {"objective": {"alpha": 0.9, "b": [1, 2]}, "set": sorted({"x", "yy", "zzz"})}
print(fingerprint_training({"model": model}, settings, code=CODE))
"""


@pytest.mark.slow
def test_every_process_finds_the_same_fingerprint(repository, tmp_path):
    """With other random hashes and from a copy of the code, as `dvc exp run --temp` makes."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repository / "distillation", tmp_path / "distillation", ignore=ignored)
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=directory,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(directory)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for directory, seed in ((repository, "1"), (tmp_path, "2"))
    ]
    found = [program.communicate(timeout=TIMEOUT_SECONDS)[0].strip() for program in programs]
    assert [program.returncode for program in programs] == [0, 0]
    assert found[0] == found[1]
    assert len(found[0]) == 64
