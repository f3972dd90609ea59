"""The one state dict in a file, whatever program wrote it."""

import collections
import functools

import pytest
import torch

from tests.helpers.checkpoints import prefixed, read, refused, same, scaled

WRAPS = {
    "bare": lambda state: state,
    "OrderedDict": collections.OrderedDict,
    "parameters": lambda state: {
        k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()
    },
    "module.": prefixed("module."),
    "_orig_mod.": prefixed("_orig_mod."),
    "model.": prefixed("model."),
    "net.": prefixed("net."),
    "module._orig_mod.model.": prefixed("module._orig_mod.model."),
    "model._orig_mod.module.net.": prefixed("model._orig_mod.module.net."),
    "_orig_mod inside": lambda state: {
        k.replace(".", "._orig_mod.", 1): v for k, v in state.items()
    },
    **{
        key: functools.partial(lambda key, state: {key: state, "epoch": 3}, key)
        for key in (
            "state_dict", "model", "model_state_dict", "net", "weights", "params", "module",
            "student", "classifier_weights",
        )
    },
    "nested": lambda state: {"model": {"state_dict": prefixed("module.")(state)}, "step": 7},
    "with an optimizer": lambda state: {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "scheduler": {"last_epoch": 3, "base": {"a": torch.ones(1)}},
        "criterion": {"weight": torch.ones(4)},
        "rng_state": torch.zeros(9, dtype=torch.uint8),
    },
    "two models": lambda state: {"model": state, "discriminator": {"a": torch.ones(1)}},
    "timm's without averages": lambda state: {
        "epoch": 1, "arch": "test_resnet", "state_dict": state, "state_dict_ema": None,
    },
    "profiler": lambda state: state
    | {"total_ops": torch.zeros(1, dtype=torch.float64), "layer1.0.total_params": torch.ones(1)},
    "averaged model of torch": lambda state: prefixed("module.")(state)
    | {"n_averaged": torch.tensor(3)},
    "scalars beside": lambda state: state | {"epoch": 3, "best_acc1": 0.9, "name": "x"},
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_what_programs_wrap_around_weights_is_taken_away(weights, path, wrap, legacy):
    torch.save(wrap(dict(weights)), path, _use_new_zipfile_serialization=not legacy)
    checkpoint = read(path)
    assert same(checkpoint.state, weights)
    assert not any(type(value) is torch.nn.Parameter for value in checkpoint.state.values())
    assert checkpoint.name == str(path)
    assert all(remark.startswith(f"{path}: ") for remark in checkpoint.remarks)


@pytest.mark.parametrize(
    ("wrap", "remark"),
    [
        ("module._orig_mod.model.", "the prefix module._orig_mod.model. is taken away"),
        ("profiler", "2 counters are left out (total_ops, …)"),
        ("scalars beside", "entries that are no tensors are left out (epoch, best_acc1, name)"),
        ("with an optimizer", None),
        ("student", "what stands under student is taken"),
        ("two models", "model is taken, not discriminator"),
        ("bare", None),
    ],
)
def test_what_was_taken_away_is_said(weights, path, wrap, remark):
    torch.save(WRAPS[wrap](dict(weights)), path)
    remarks = read(path).remarks
    assert any(remark in said for said in remarks) if remark else remarks == ()


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "params_ema", "ema_model"])
def test_averaged_weights_are_preferred_and_it_is_said(weights, path, key):
    plain = {"params": "params_ema", "model": key}.get(key, "state_dict")
    torch.save({plain: scaled(weights), key: weights, "ema_decay": 0.99}, path)
    checkpoint = read(path)
    assert same(checkpoint.state, weights)
    assert checkpoint.remarks == (f"{path}: the averaged weights ({key}) are taken",)


@pytest.mark.parametrize(
    "average",
    [
        lambda w: {"loss": torch.tensor(0.3)},  # average_meters of a log
        lambda w: {k: v for k, v in w.items() if "running" not in k},  # parameters alone
        lambda w: {"decay": torch.tensor(0.99)},
    ],
)
def test_an_average_that_is_no_whole_model_is_passed_over_and_it_is_said(weights, path, average):
    torch.save({"model": weights, "averages": average(scaled(weights))}, path)
    checkpoint = read(path)
    assert same(checkpoint.state, weights)
    assert checkpoint.remarks == (
        f"{path}: model is taken; the averaged weights (averages) lack some of it",
    )


def test_averaged_weights_by_prefix_are_preferred(weights, path):
    both = prefixed("model.")(scaled(weights)) | prefixed("model_ema.module.")(weights)
    torch.save({"state_dict": both}, path)
    checkpoint = read(path)
    assert same(checkpoint.state, weights)
    assert "the averaged weights (model_ema.*) are taken" in checkpoint.remarks[0]


def test_averaged_weights_without_names_are_not_passed_over_in_silence(weights, path):
    torch.save({"model": weights, "ema": {"decay": 0.9, "shadow": [torch.ones(2)]}}, path)
    checkpoint = read(path)
    assert same(checkpoint.state, weights)
    assert "the averaged weights (ema) have no names and are left out" in checkpoint.remarks[0]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (torch.ones(3), "holds one tensor and no state dict"),
        ([torch.ones(3)], "holds one list and no state dict"),
        ({}, r"holds no tensors under its names \(nothing\)"),
        ({"epoch": 3, "note": "x"}, r"holds no tensors under its names \(epoch, note\)"),
        ({"state_dict": {"a": "b"}}, "holds no tensors under its names"),
        ({0: torch.ones(3)}, "whose tensors have no names"),
        ({"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
         r"holds an optimizer and no weights \(param_groups, state\)"),
        ({"state": {"a": {"exp_avg": torch.ones(2)}}, "param_groups": []}, "an optimizer and no"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "epoch": 3},
         r"holds an optimizer and no weights \(epoch, optimizer\)"),
        (lambda w: {"generator": w, "discriminator": w}, r"several models \(generator, discrim"),
        (lambda w: {"teacher": w, "student": w}, r"holds several models \(teacher, student\)"),
        (lambda w: {"model": w, "net": w}, r"holds several models \(model, net\)"),
        (lambda w: prefixed("teacher.")(w) | prefixed("student.")(w), r"\(teacher, student\)"),
        (lambda w: prefixed("a.")(w) | prefixed("b.")(w), r"holds several models \(a, b\)"),
        (lambda w: w | prefixed("module.")(w), "in which two tensors have one name"),
    ],
)  # fmt: skip
def test_contents_that_are_no_model(weights, path, content, match):
    torch.save(content(dict(weights)) if callable(content) else content, path)
    refused(path, match)


def test_mappings_in_mappings_end(tmp_path):
    """Forty levels by reference are a file of kilobytes, and would be looked at 3^40 times."""
    content = {"w": torch.ones(1)}
    for _ in range(40):
        content = {"state_dict": content, "ema": content, "x": torch.ones(1)}
    torch.save(content, tmp_path / "deep.pt")
    refused(tmp_path / "deep.pt", "which holds mappings in mappings")
