"""Folders that are splits, classes, or neither."""

import re

import pytest

from distillation.sources.decode import DataError
from distillation.sources.layout import make_layout, split_of


def lay_out(*paths, folders=()):
    return make_layout(paths, folders, source="set")


def counts(layout):
    return {"/".join(group).lstrip("/"): len(files) for group, files in layout.groups.items()}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("TRAINING", "testing"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("train2017", "test2017"),
        ("trainset", "testset"),
        ("train-images", "test images"),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "archive/", "archive/data/"])
def test_what_splits_are_called(train, test, wrapper):
    files = [f"{wrapper}{s}/{c}/0.png" for s in (train, test) for c in ("sea", "street")]
    layout = lay_out(*files)
    assert layout.class_names == ("sea", "street")
    assert counts(layout) == {"train/sea": 1, "train/street": 1, "test/sea": 1, "test/street": 1}


@pytest.mark.parametrize("name", ["val", "Valid", "VALIDATION", "validation_set", "dev", "Dev"])
def test_what_the_validation_split_is_called(name):
    layout = lay_out("train/a/0", "train/b/0", f"{name}/a/0")
    assert counts(layout) == {"train/a": 1, "train/b": 1, "validation/a": 1}


@pytest.mark.parametrize("name", ["trains", "contest", "dev", "value", "train station", "vale"])
def test_what_is_no_split(name):
    assert split_of(name) is None
    assert lay_out(f"{name}/0", "other/0").class_names == tuple(sorted([name, "other"]))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["train/a/0", "train/b/0", "val/a/0", "validation/a/0"],
            "set: the folders val and validation both mean the split validation; allowed: one "
            "folder per split",
        ),
        (
            ["train/a/0", "Train/b/0"],
            "set: the folders Train and train both mean the split train; allowed: one folder per "
            "split",
        ),
        (
            ["seg_train/a/0", "seg_train/b/0", "seg_pred/x/0"],
            "set: class folders seg_pred stand beside seg_train/, which mean splits; allowed: "
            "either split folders or class folders at the top; splits are called train/training, "
            "val/valid/validation, test/testing",
        ),
        (
            ["train/a/0", "train/b/0", "evaluation/a/0"],
            "set: class folders evaluation stand beside train/, which mean splits",
        ),
        (
            ["train_1/0", "test_1/0"],
            "set: the folders test_1, train_1 look like splits and are not called so; allowed: "
            "train/training, val/valid/validation, test/testing",
        ),
        (["eval/0", "dev/0"], "set: the folders dev, eval look like splits and are not called so"),
        (["Valid/a/0", "Valid/b/0"], "set: there is no train/ folder beside ['Valid']"),
        (["train/a/0", "train/b/0", "Val/c/0"], "set: class c is in Val/ but not in train/"),
    ],
)
def test_splits_that_cannot_be_used(paths, message):
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        lay_out(*paths)


@pytest.mark.parametrize(
    ("paths", "classes", "subfolders"),
    [
        (["cat/train/0", "cat/test/0", "dog/train/0", "dog/test/0"], "cat, dog", "test, train"),
        (["cat/Train/0", "cat/1", "dog/Train/0", "dog/1"], "cat, dog", "Train"),
        (["cat/train/0", "cat/val/0", "dog/train/0"], "cat, dog", "train"),
        (["fold1/a/0", "fold1/b/0", "fold2/a/0", "fold2/b/0"], "fold1, fold2", "a, b"),
        (["f1/a/0", "f1/b/0", "f2/a/0", "f2/b/0", "f2/c/0"], "f1, f2", "a, b"),
        (["cat/images/0", "dog/images/0"], "cat, dog", "images"),
        (["a/x/0", "b/x/0", "c/x/0", "d/x/0", "e/x/0", "f/x/0"], "a, b, c, d, e and 1 more", "x"),
        (["train/f1/a/0", "train/f2/a/0", "test/f1/0"], "train/f1, train/f2", "a"),
    ],
)
def test_folders_with_the_same_subfolders_are_not_taken_for_classes(paths, classes, subfolders):
    message = (
        f"set: the folders {classes} all hold the same subfolders ({subfolders}), so it is open "
        "which are the classes; allowed: <class>/<image>, or <split>/<class>/<image>"
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        lay_out(*paths)


def test_subfolders_of_a_classs_own_are_the_classs():
    layout = lay_out("cat/0", "cat/2023/0", "cat/2024/deep/0", "dog/2024/0", "dog/fun/0")
    assert counts(layout) == {"cat": 3, "dog": 2}
    assert layout.nested == ("2024",)
    assert lay_out("cat/2023/0", "dog/fun/0").nested == ()


def test_folders_outside_the_wrapper_are_no_classes():
    layout = lay_out("in/a/0", "in/b/0", folders=["in", "in/a", "in/b", "empty", "empty/deep"])
    assert layout.class_names == ("a", "b")


def test_classes_are_ordered_as_strings():
    layout = lay_out(*(f"{number}/0" for number in range(1, 11)))
    assert layout.class_names == ("1", "10", "2", "3", "4", "5", "6", "7", "8", "9")


@pytest.mark.parametrize(
    "names",
    [("Cat", "cat"), ("cat", "cat "), ("cat", " cat"), ("a  b", "a b"), ("cat", "c\u200bat")],
)
@pytest.mark.parametrize("splits", [("", ""), ("train/", "test/")])
def test_class_names_that_look_the_same_are_refused(names, splits):
    paths = [f"{split}{name}/0" for split, name in zip(splits, names, strict=True)]
    listed = ", ".join(map(repr, sorted(names)))
    with pytest.raises(DataError, match=f"^set: class folders {re.escape(listed)} differ in case,"):
        lay_out(*paths, f"{splits[0]}other/0")


def test_two_unicode_forms_of_a_name_are_one_class():
    composed, decomposed = "k\u00f6ter", "ko\u0308ter"
    layout = lay_out(f"{composed}/0", f"{decomposed}/1", "ant/0")
    assert layout.class_names == ("ant", composed)
    assert layout.groups["", composed] == [f"{decomposed}/1", f"{composed}/0"]
    layout = lay_out(f"train/{composed}/0", "train/ant/0", f"test/{decomposed}/1")
    assert counts(layout) == {f"train/{composed}": 1, "train/ant": 1, f"test/{composed}": 1}
