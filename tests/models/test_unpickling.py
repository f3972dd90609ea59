"""No code in a file is run, and what is harmless does not keep weights from being read."""

import collections
import datetime
import functools
import os
import pathlib
import re
import sys
import types
import zipfile

import numpy as np
import omegaconf
import pytest
import torch

from tests.helpers.checkpoints import prefixed, read, refused, same


def lightning_like(weights):
    module = types.ModuleType("lightning_like")

    class AttributeDict(dict):
        """As Lightning's own."""

    class Setting:
        def __init__(self):
            self.value = 3

    for cls in (AttributeDict, Setting):
        cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
        setattr(module, cls.__name__, cls)
    settings = AttributeDict(lr=0.1, path=pathlib.Path("/data"), setting=Setting())
    content = {
        "epoch": 9,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed("model.")(weights),
        "hparams_name": "kwargs",
        "hyper_parameters": settings,
        "config": omegaconf.OmegaConf.create({"a": [1, {"b": 2}]}),
        "callbacks": {
            "ModelCheckpoint": {"best": torch.tensor(0.3), "at": pathlib.PurePath("a/b")}
        },
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "history": collections.defaultdict(list, loss=[np.float64(0.3), np.ones(3)]),
        "losses": collections.deque([0.5, 0.3], maxlen=9),
        "pattern": re.compile("a"),
        "criterion": torch.nn.CrossEntropyLoss(),
        "activation": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
        "optimizer_states": [{"state": {}}],
    }
    return module, content


@pytest.mark.parametrize("legacy", [False, True])
def test_settings_of_any_class_stand_beside_the_weights_and_are_not_loaded(
    monkeypatch, weights, path, legacy
):
    module, content = lightning_like(weights)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    if legacy:
        del content["criterion"]  # this format keeps the source of layers
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    monkeypatch.delitem(sys.modules, module.__name__)  # as on another machine
    assert same(read(path).state, weights)


class Runs:
    """Runs a command when it is unpickled by a loader that trusts it."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["weight", "beside", "alone"])
@pytest.mark.parametrize(
    ("call", "name"),
    [(os.system, r"(posix|nt)\.system"), (eval, r"builtins\.eval"), (open, r"_?io\.open")],
)
def test_a_file_that_would_run_code_is_refused_and_does_not(
    weights, path, call, name, place, legacy
):
    mark = path.with_name("mark")
    argument = {os.system: f"touch {mark}", eval: f"open({str(mark)!r}, 'w')"}.get(call, str(mark))
    evil = Runs(call, argument, "w") if call is open else Runs(call, argument)
    content = {
        "weight": {"conv1.weight": evil},
        "beside": {"state_dict": weights, "hyper_parameters": evil},
        "alone": evil,
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    refused(path, f"which names {name} and so could run code")
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickles_of_other_protocols_run_nothing(path, protocol):
    mark = path.with_name("mark")
    content = {"a": torch.ones(2), "b": Runs(os.system, f"touch {mark}")}
    kind = "which names posix.system" if protocol == 3 else "which was written by pickle"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    refused(path, kind)
    torch.save(content, path, pickle_protocol=protocol)
    refused(path, kind)
    assert not mark.exists()


def test_a_file_with_two_lists_of_tensors_is_refused(weights, path):
    """The names are looked up in one of them; torch might read the other."""
    torch.save(dict(weights), path)
    with zipfile.ZipFile(path, "a") as archive:
        (member,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(member, b"\x80\x02}.")
    refused(path, "which is a zip archive that holds")


def test_a_function_of_another_package_is_not_called_either(weights, path):
    mark = path.with_name("mark")
    torch.save({"state_dict": weights, "more": Runs(np.savetxt, str(mark), [1.0])}, path)
    assert same(read(path).state, weights)
    assert not mark.exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: {"model": n, "epoch": 3, "ema": None}])
def test_a_whole_pickled_model_is_refused(net, path, wrap, legacy):
    torch.save(wrap(net), path, _use_new_zipfile_serialization=not legacy)
    name = "" if legacy else r" \(timm\.models\.resnet\.ResNet\)"
    message = refused(path, f"which holds a whole pickled model{name}; save")
    assert "save model.state_dict() by torch.save or safetensors" in message
