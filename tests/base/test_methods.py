"""The registry of methods, which are the files in `losses/`."""

import importlib.util
import subprocess
import sys

import pytest
from torch import nn

from distillation.base import methods
from distillation.base.errors import DistillationError
from distillation.base.methods import (
    DEFAULT_METHODS,
    EXPERIMENTS,
    MethodError,
    check_method,
    further_methods,
    module_name,
    sort_methods,
)

METHODS = ("attention", "dist", "dkd", "exp3_scaled", "similarity")


def test_every_further_file_is_a_method():
    assert further_methods() == METHODS


def test_a_new_file_is_a_new_method(tmp_path, monkeypatch):
    (tmp_path / "losses").mkdir()
    for name in (
        "__init__.py",
        "logits.py",
        "exp1.py",
        "exp2.py",
        "exp3.py",
        "new.py",
        "notes.txt",
    ):
        (tmp_path / "losses" / name).touch()
    monkeypatch.setattr(methods, "__file__", str(tmp_path / "base" / "methods.py"))
    assert further_methods() == ("new",)
    assert module_name("new") == "distillation.losses.new"
    assert sort_methods(["new", "control"]) == ["control", "new"]


def test_a_file_called_exp_and_a_number_is_a_new_experiment(tmp_path, monkeypatch):
    (tmp_path / "losses").mkdir()
    for name in ("exp10.py", "exp4.py", "exp3_scaled.py", "exp.py", "exp04.py", "exp5.txt"):
        (tmp_path / "losses" / name).touch()
    monkeypatch.setattr(methods, "__file__", str(tmp_path / "base" / "methods.py"))
    assert methods._find_experiments() == ("exp4", "exp10")


@pytest.mark.parametrize("name", [*EXPERIMENTS, *METHODS])
def test_the_module_of_each_method_has_its_name(name):
    assert check_method(name) == name
    assert module_name(name) == f"distillation.losses.{name}"
    assert importlib.util.find_spec(module_name(name)) is not None


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_module_replaces_one_term(name):
    """Either the logit loss or the feature loss, with what it needs of the teacher's features."""
    module = importlib.import_module(module_name(name))
    logit, feature = hasattr(module, "build_logit_loss"), hasattr(module, "build_feature_loss")
    assert logit != feature
    assert hasattr(module, "FEATURES") == feature
    if feature:
        assert module.FEATURES in {"map", "pooled"}
        built = module.build_feature_loss(3, 4)
    else:
        built = module.build_logit_loss(temperature=4.0, weight=1.0)
    assert isinstance(built, nn.Module)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("exp4", "exp3"),
        ("dk", "dkd"),
        ("DIST", None),
        ("dst", "dist"),
        ("atention", "attention"),
        ("exp3-scaled", "exp3_scaled"),
        ("similarities", "similarity"),
    ],
)
@pytest.mark.parametrize("function", [check_method, module_name])
def test_a_wrong_name_is_answered_with_the_nearest(function, wrong, near):
    with pytest.raises(MethodError, match=f"^method: got '{wrong}'; ") as caught:
        function(wrong)
    assert isinstance(caught.value, DistillationError)
    if near is not None:
        assert str(caught.value).endswith(f"did you mean {near}?")


@pytest.mark.parametrize("wrong", ["control", "__init__", "logits", "cosine", "", "zzz"])
def test_what_is_like_none_is_answered_with_all(wrong):
    with pytest.raises(MethodError) as caught:
        check_method(wrong)
    allowed = ", ".join((*EXPERIMENTS, *METHODS))
    assert str(caught.value) == f"method: got {wrong!r}; allowed: {allowed}"


def test_methods_are_sorted_for_tables():
    expected = ["control", "exp1", "exp2", "exp3", *METHODS]
    assert [*DEFAULT_METHODS, *METHODS] == expected
    assert sort_methods(reversed(expected)) == expected
    assert sort_methods(["dkd", "exp2", "attention", "control"]) == [
        "control",
        "exp2",
        "attention",
        "dkd",
    ]
    assert sort_methods([]) == []


def test_unknown_methods_come_last_in_the_order_given():
    names = (name for name in ("teacher", "similarity", "baseline", "exp1"))  # Read once only.
    assert sort_methods(names) == ["exp1", "similarity", "teacher", "baseline"]


def test_torch_is_not_imported(repository):
    """The parameters are checked, and DVC's stages listed, without waiting for it."""
    program = (
        "import sys, distillation.base.methods as methods; methods.module_name('dkd');"
        "print(sorted({'torch', 'timm', 'numpy', 'distillation.losses'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=repository
    )
    assert done.stdout.strip() == "[]"
