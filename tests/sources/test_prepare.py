import hashlib
import io
import json
import os
import pickle
import re
import tarfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, cifar, utils

from distillation.base.limits import SpaceError
from distillation.base.params import replace
from distillation.base.workspace import Workspace
from distillation.data.prepared import load_prepared, save_prepared
from distillation.sources import decoding, known
from distillation.sources.decode import DataError, decode_image
from distillation.sources.files import sha256_of
from distillation.sources.known import CIFAR10_CLASSES
from distillation.sources.prepare import list_source, prepare
from stages import prepare_data

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Stand in for torchvision's download: unpack what is there, else fail as with no network."""

    def download(url, root, filename, md5):
        if not Path(root, filename).exists():
            raise URLError("no network")
        with tarfile.open(Path(root, filename)) as archive:
            # Python has filters since 3.11.4.
            safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(root, **safely)

    monkeypatch.setattr(cifar, "download_and_extract_archive", download)
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:1/cifar-10-python.tar.gz")


@pytest.fixture
def tree(noise):
    """Give `{path: image}` for split folders, classes and a number of images in each class."""

    def build(layout, ending="png", file_format="PNG", size=(8, 8)):
        names = [
            f"{split}/{name}/{i}.{ending}".lstrip("/")
            for split, classes in layout.items()
            for name, count in classes.items()
            for i in range(count)
        ]
        return {name: noise(seed, size, file_format) for seed, name in enumerate(names)}

    return build


def samples(*splits):
    """Count (label, image) pairs, to compare sets of samples whatever their order."""
    return Counter(
        (int(label), image.tobytes())
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    )


def expected(files, classes, prefix=""):
    """Give the samples of the files below a folder."""
    return Counter(
        (classes.index(name.split("/")[-2]), decode_image(content, 8, name=name).tobytes())
        for name, content in files.items()
        if name.startswith(prefix)
    )


def check_shapes(data, num_classes, size=8):
    assert (data.num_classes, data.image_size) == (num_classes, size)
    for name in SPLITS:
        split = getattr(data, name)
        assert split.images.shape == (len(split), size, size, 3)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
        assert set(split.labels.tolist()) == set(range(num_classes))


# --- digits ------------------------------------------------------------------------------------


def test_digits(params_for, tmp_path):
    params = params_for("digits", test_fraction=0.2, validation_fraction=0.1, seed=5)
    data = prepare(params, tmp_path / "out", raw_directory=tmp_path)

    check_shapes(data, 10)
    counts = {name: list(per_class.values()) for name, per_class in data.counts().items()}
    assert sum(counts["train"] + counts["validation"] + counts["test"]) == 1797
    all_of_class = np.bincount(load_digits().target)
    assert counts["test"] == [round(0.2 * n) for n in all_of_class]
    rest = all_of_class - counts["test"]
    assert counts["validation"] == [round(0.1 * n) for n in rest]
    assert counts["labeled"] == counts["train"] == (rest - counts["validation"]).tolist()
    assert data.class_names == tuple("0123456789")
    assert (data.source, data.view_seed) == ("digits (scikit-learn)", 5)
    assert json.loads(json.dumps(data.provenance)) == data.provenance


def test_digits_of_their_own_size_are_scaled_and_nothing_else(params_for, tmp_path):
    data = prepare(params_for("digits"), tmp_path / "out", raw_directory=tmp_path)

    digits = load_digits()
    grey = np.rint(digits.images / 16 * 255).astype(np.uint8)
    assert samples(data.train, data.validation, data.test) == Counter(
        (int(label), np.stack([image] * 3, axis=-1).tobytes())
        for image, label in zip(grey, digits.target, strict=True)
    )


def test_digits_image_size_is_honoured(params_for, tmp_path):
    data = prepare(params_for("digits", image_size=20), tmp_path / "out", raw_directory=tmp_path)

    check_shapes(data, 10, size=20)


def test_the_split_repeats_from_the_seed_and_no_other(params_for, tmp_path):
    def images(seed):
        data = prepare(
            params_for("digits", seed=seed, labeled_fraction=0.1),
            tmp_path / "out",
            raw_directory=tmp_path,
        )
        return [data.train.images, data.validation.images, data.test.images, data.labeled]

    first, again, other = images(1), images(1), images(2)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_ten_percent_of_the_labels_lie_inside_twenty(params_for, tmp_path):
    ten, twenty = (
        prepare(
            params_for("digits", labeled_fraction=fraction),
            tmp_path / "out",
            raw_directory=tmp_path,
        )
        for fraction in (0.1, 0.2)
    )

    np.testing.assert_array_equal(ten.train.images, twenty.train.images)
    assert set(ten.labeled) < set(twenty.labeled)
    for data, fraction in ((ten, 0.1), (twenty, 0.2)):
        counts = data.counts()
        for name in data.class_names:
            assert counts["labeled"][name] == round(fraction * counts["train"][name])


# --- a folder or an archive ----------------------------------------------------------------------

CLASSES = ("ant", "bee", "cow")


@pytest.mark.parametrize("ending", ["", ".tar.gz", ".zip"])
def test_one_level_is_split(params_for, tree, write, tmp_path, ending):
    files = tree({"": {"ant": 20, "bee": 10, "cow": 3}})
    source = write(tmp_path / f"set{ending}", files)
    params = params_for(source, test_fraction=0.2, validation_fraction=0.25)
    data = prepare(params, tmp_path / "out", raw_directory=tmp_path / "raw")

    check_shapes(data, 3)
    assert samples(data.train, data.validation, data.test) == expected(files, CLASSES)
    counts = {split: list(names.values()) for split, names in data.counts().items()}
    assert counts["test"] == [4, 2, 1]
    assert counts["validation"] == [4, 2, 1]
    assert counts["train"] == [12, 6, 1]
    assert data.class_names == CLASSES
    assert data.source == f"image folder set{ending}"
    assert data.provenance["file"] == f"set{ending}"
    assert data.provenance["image_endings"] == [".png"]
    if ending:
        assert data.provenance["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_a_single_held_out_folder_is_the_test_set(params_for, tree, write, tmp_path, held_out):
    files = tree({"train": dict.fromkeys(CLASSES, 10), held_out: dict.fromkeys(CLASSES, 2)})
    params = params_for(write(tmp_path / "set", files), validation_fraction=0.3)
    data = prepare(params, tmp_path / "out", raw_directory=tmp_path)

    check_shapes(data, 3)
    assert samples(data.test) == expected(files, CLASSES, f"{held_out}/")
    assert samples(data.train, data.validation) == expected(files, CLASSES, "train/")
    assert list(data.counts()["validation"].values()) == [3, 3, 3]


def test_three_folders_are_taken_as_they_are(params_for, tree, write, tmp_path):
    files = tree({s: dict.fromkeys(CLASSES, n) for s, n in (("train", 4), ("val", 3), ("test", 2))})
    data = prepare(
        params_for(write(tmp_path / "set", files)), tmp_path / "out", raw_directory=tmp_path
    )

    check_shapes(data, 3)
    for name, folder in (("train", "train/"), ("validation", "val/"), ("test", "test/")):
        assert samples(getattr(data, name)) == expected(files, CLASSES, folder)


def test_a_lone_train_folder_is_split(params_for, tree, write, tmp_path):
    files = tree({"train": dict.fromkeys(CLASSES, 10)})
    data = prepare(
        params_for(write(tmp_path / "set", files)), tmp_path / "out", raw_directory=tmp_path
    )

    check_shapes(data, 3)
    assert samples(data.train, data.validation, data.test) == expected(files, CLASSES)


LAYOUTS_AND_SMALLEST = [((), 3), (("test",), 2), (("val",), 2), (("val", "test"), 1)]


@pytest.mark.parametrize("fractions", [(0.01, 0.01), (0.2, 0.1), (0.5, 0.5)])
@pytest.mark.parametrize(("held_out", "smallest"), LAYOUTS_AND_SMALLEST)
def test_the_smallest_class_has_an_image_in_each_split(
    params_for, tree, write, tmp_path, held_out, smallest, fractions
):
    layout = {"train" if held_out else "": {"ant": 6, "bee": smallest, "cow": 6}}
    layout |= {name: dict.fromkeys(CLASSES, 1) for name in held_out}
    source = write(tmp_path / "set", tree(layout))
    params = params_for(source, test_fraction=fractions[0], validation_fraction=fractions[1])

    check_shapes(prepare(params, tmp_path / "out", raw_directory=tmp_path), 3)


@pytest.mark.parametrize(("held_out", "smallest"), LAYOUTS_AND_SMALLEST[:3])
def test_a_class_that_is_too_small_is_named(params_for, tree, write, tmp_path, held_out, smallest):
    layout = {"train" if held_out else "": {"ant": 6, "bee": smallest - 1, "cow": 6}}
    layout |= {name: dict.fromkeys(CLASSES, 1) for name in held_out}
    source = write(tmp_path / "set", tree(layout))
    with pytest.raises(
        DataError,
        match=rf"{source}: class bee has {smallest - 1} image\(s\) to train on; "
        rf"allowed: at least {smallest}",
    ):
        prepare(params_for(source), tmp_path / "out", raw_directory=tmp_path)


def said(caplog):
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


def test_images_of_test_that_are_in_train_too_are_counted(
    params_for, tree, write, noise, tmp_path, caplog
):
    """Under whatever name and format, of a set with splits of its own."""
    files = tree({"train": dict.fromkeys(CLASSES, 60), "test": dict.fromkeys(CLASSES, 40)})
    files["test/ant/0.png"] = files["train/ant/3.png"]
    files["test/ant/1.bmp"] = noise(list(files).index("train/ant/4.png"), file_format="BMP")
    files["test/bee/0.png"] = files["train/cow/0.png"]
    params = params_for(write(tmp_path / "set", files), validation_fraction=0.05)
    data = prepare(params, tmp_path / "out", raw_directory=tmp_path)

    held_out = {hash(image.tobytes()) for image in data.validation.images}
    expected = [
        (decode_image(files[f"train/{name}.png"], 8, name=""), other)
        for name, other in (("ant/3", 0), ("ant/4", 0), ("cow/0", 1))
    ]
    left = [other for image, other in expected if hash(image.tobytes()) not in held_out]
    assert data.provenance["also_in_train"] == {
        "validation": {"images": 0, "with_another_label": 0},
        "test": {"images": len(left), "with_another_label": sum(left)},
    }
    assert len(left) >= 2
    (line,) = said(caplog)
    assert line.startswith(f"WARNING: {len(left)} of 121 test images are in train too, pixel by")


def test_copies_that_a_random_split_separates_are_counted(
    params_for, tree, write, tmp_path, caplog
):
    files = tree({"": dict.fromkeys(CLASSES, 200)})
    files |= {name.replace("/", "/copy of "): content for name, content in files.items()}
    data = prepare(
        params_for(write(tmp_path / "set", files)), tmp_path / "out", raw_directory=tmp_path
    )

    for name in ("validation", "test"):
        split = getattr(data, name)
        counted = data.provenance["also_in_train"][name]
        both = samples(split) - (samples(split) - samples(data.train))
        assert counted == {"images": sum(both.values()), "with_another_label": 0}
        assert any(f"{counted['images']} of {len(split)} {name} images" in s for s in said(caplog))
    assert json.loads(json.dumps(data.provenance)) == data.provenance


def test_a_small_test_set_and_a_class_without_one_are_told(
    params_for, tree, write, tmp_path, caplog
):
    files = tree({"train": dict.fromkeys(CLASSES, 9), "test": {"ant": 4, "bee": 4}})
    prepare(params_for(write(tmp_path / "set", files)), tmp_path / "out", raw_directory=tmp_path)

    assert said(caplog) == [
        "WARNING: test has no image of cow: nothing is measured there",
        "WARNING: 50.0 % of the test images are of class ant: always guessing it has that "
        "accuracy, so read macro-F1 beside every accuracy",
        "WARNING: test has 8 images: each is worth 12.5 points of accuracy, and smaller "
        "differences mean nothing",
    ]


def test_a_set_without_a_fault_is_not_doubted(params_for, tree, write, tmp_path, caplog):
    files = tree({"": dict.fromkeys(CLASSES, 200)})
    prepare(params_for(write(tmp_path / "set", files)), tmp_path / "out", raw_directory=tmp_path)

    assert said(caplog) == []


def test_a_missing_path_is_named(params_for, tmp_path):
    with pytest.raises(
        DataError,
        match=rf"^dataset: got '{tmp_path}/gone', which does not exist; allowed: cifar10, digits, "
        r"or the path .*\.tar\.gz",
    ):
        prepare(params_for(tmp_path / "gone"), tmp_path / "out", raw_directory=tmp_path)


# --- the files that are written ----------------------------------------------------------------

LAYOUTS = {
    "one level": {"": {"ant": 7, "bee": 5, "10": 4, "2": 6}},
    "three splits": {
        "train": {"ant": 4, "bee": 6},
        "val": {"bee": 3, "ant": 1},
        "test": {"ant": 2, "bee": 2},
    },
    "train and val": {"train": {"ant": 5, "bee": 6}, "val": {"ant": 2, "bee": 1}},
}
FINGERPRINTS = {
    "one level": "9523b9697f3967ee792fcf4cc63227bea0df9b71c531ee60ebc2d0297726964a",
    "three splits": "bc1287c260699646688ec41985d91e7757b1b90e8dfac56042165c4acd1616e0",
    "train and val": "6094953535c44b97c0868081583d9d446b4e432595914fe4a2778c567c339180",
}
"""Of the arrays that were written when all images were held in memory."""


@pytest.mark.parametrize("ending", ["", ".tar", ".tar.gz", ".zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_arrays_are_what_they_always_were(
    params_for, noise, write, tmp_path, monkeypatch, layout, ending
):
    """Whatever the order in which threads are done, and however many images one has at a time."""
    monkeypatch.setattr(decoding, "_CHUNK_IMAGES", 3)
    files = {}
    for split, classes in LAYOUTS[layout].items():
        for name, count in classes.items():
            for i in range(count):
                inner = f"deep/{i}.png" if i % 3 == 2 else f"{i}.png"
                files[f"{split}/{name}/{inner}".lstrip("/")] = noise(len(files))
    source = write(tmp_path / f"set{ending}", files)
    params = params_for(source, labeled_fraction=0.5, seed=3)
    out = tmp_path / "out"
    data = prepare(params, out, raw_directory=tmp_path, num_threads=4)
    assert data.fingerprint == data.compute_fingerprint() == FINGERPRINTS[layout]

    save_prepared(data, tmp_path / "again")
    assert files_below(out) == files_below(tmp_path / "again")
    for name in files_below(out):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    if not ending:
        assert data.provenance["sha256"] == sha256_of(source)


def test_training_images_may_be_prepared_larger(params_for, tree, write, tmp_path):
    files = tree({s: dict.fromkeys(CLASSES, 4) for s in ("train", "val", "test")}, size=(40, 30))
    files["test/ant/0.png"] = files["train/ant/1.png"]
    params = params_for(
        write(tmp_path / "set", files), image_size=8, prepared_size=20, augmentation="resized_crop"
    )
    data = prepare(params, tmp_path / "out", raw_directory=tmp_path)

    assert data.image_size == 8
    assert data.train.images.shape == (12, 20, 20, 3)
    assert data.validation.images.shape == data.test.images.shape == (12, 8, 8, 3)
    for split, folder, size in (
        ("train", "train", 20),
        ("validation", "val", 8),
        ("test",) * 2 + (8,),
    ):
        contents = [files[f"{folder}/{name}/{i}.png"] for name in CLASSES for i in range(4)]
        np.testing.assert_array_equal(
            getattr(data, split).images,
            np.stack([decode_image(content, size, name="") for content in contents]),
        )
    assert data.provenance["also_in_train"]["test"] == {"images": 1, "with_another_label": 0}
    assert data.fingerprint == data.compute_fingerprint()
    same = prepare(replace(params, prepared_size=8), tmp_path / "8", raw_directory=tmp_path)
    none = prepare(replace(params, prepared_size=None), tmp_path / "0", raw_directory=tmp_path)
    assert same.fingerprint == none.fingerprint != data.fingerprint


def test_a_set_that_does_not_fit_on_the_disk_is_refused(
    params_for, tree, write, tmp_path, monkeypatch
):
    source = write(tmp_path / "set", tree({"": {"ant": 5, "bee": 5}}))
    small = SimpleNamespace(f_bavail=10_000_000, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    out = tmp_path / "deep" / "out"
    params = params_for(source, image_size=512, prepared_size=1024, augmentation="resized_crop")
    with pytest.raises(
        SpaceError,
        match=rf"^{out} needs 0\.02 GB and its disk has 0\.01 GB free; make room, or make "
        r"image_size or prepared_size smaller$",
    ):
        prepare(params, out, raw_directory=tmp_path)
    assert not out.parent.exists()


# --- what is known before -----------------------------------------------------------------------


def test_a_listing_decodes_nothing(params_for, write, tmp_path):
    files = {f"{s}/{c}/{i}.png": b"x" for s in ("Train", "Valid") for c in "ab" for i in range(2)}
    listing = list_source(params_for(write(tmp_path / "set", files)), tmp_path)
    assert listing.class_names == ("a", "b")
    assert listing.splits == ("train", "test")
    assert listing.counts == {"train": {"a": 2, "b": 2}, "test": {"a": 2, "b": 2}}
    assert files_below(tmp_path) == files_below(tmp_path / "set", "set/")


def test_a_listing_has_the_counts_of_the_prepared_set(params_for, tree, write, tmp_path):
    source = write(tmp_path / "set.zip", tree({"": {"ant": 5, "bee": 7}}))
    listing = list_source(params_for(source), tmp_path)
    data = prepare(params_for(source), tmp_path / "out", raw_directory=tmp_path)
    counts = data.counts()
    assert listing.class_names == data.class_names
    assert listing.counts["train"] == {
        name: sum(counts[split][name] for split in SPLITS) for name in data.class_names
    }


def test_a_listing_of_the_sets_with_a_name(params_for, tmp_path):
    cifar10 = list_source(params_for("cifar10"), tmp_path / "nowhere")
    assert cifar10.class_names == CIFAR10_CLASSES
    assert cifar10.counts["train"] == dict.fromkeys(CIFAR10_CLASSES, 5000)
    assert cifar10.counts["test"] == dict.fromkeys(CIFAR10_CLASSES, 1000)
    assert not (tmp_path / "nowhere").exists()
    assert sum(list_source(params_for("digits"), tmp_path).counts["train"].values()) == 1797


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            {"": {"ant": 5, "bee": 2}},
            r"class bee has 2 image\(s\) to train on; allowed: at least 3",
        ),
        ({"Train": {"ant": 5, "bee": 2}, "x": {"ant": 1}}, "class folders x stand beside Train/"),
    ],
)
def test_a_listing_raises_what_preparing_raises(params_for, tree, write, tmp_path, layout, message):
    params = params_for(write(tmp_path / "set", tree(layout)))
    with pytest.raises(DataError, match=message):
        list_source(params, tmp_path)
    with pytest.raises(DataError, match=message):
        prepare(params, tmp_path / "out", raw_directory=tmp_path)


# --- an imbalance -------------------------------------------------------------------------------


def test_a_large_imbalance_is_told(params_for, tree, write, tmp_path, caplog):
    files = tree({"train": {"ant": 10, "bee": 10}, "test": {"ant": 30, "bee": 90}})
    data = prepare(
        params_for(write(tmp_path / "set", files), validation_fraction=0.3),
        tmp_path / "out",
        raw_directory=tmp_path,
    )
    assert data.provenance["majority_share"] == {"train": 50, "validation": 50, "test": 75}
    assert said(caplog) == [
        "WARNING: 75.0 % of the test images are of class bee: always guessing it has that "
        "accuracy, so read macro-F1 beside every accuracy"
    ]


def test_subfolders_that_every_class_has_are_told(params_for, tree, write, tmp_path, caplog):
    files = tree({"": dict.fromkeys(CLASSES, 200)})
    files |= {f"{name}/2024/0.png": files[f"{name}/0.png"] for name in CLASSES}
    prepare(params_for(write(tmp_path / "set", files)), tmp_path / "out", raw_directory=tmp_path)
    assert "WARNING: every class has a subfolder 2024: its images are taken for the class's" in (
        said(caplog)
    )


# --- CIFAR-10, a copy as images ----------------------------------------------------------------


def cifar_layout(classes=CIFAR10_CLASSES):
    return {"train": dict.fromkeys(classes, 3), "test": dict.fromkeys(classes, 2)}


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar", ".zip"])
def test_cifar10_from_a_jpeg_copy(params_for, tree, write, tmp_path, ending):
    files = tree(cifar_layout(), "jpg", "JPEG", size=(32, 32))
    source = write(tmp_path / f"cifar10-images{ending}", files)
    data = prepare(params_for("cifar10", image_size=8), tmp_path / "out", raw_directory=tmp_path)

    check_shapes(data, 10)
    assert data.class_names == CIFAR10_CLASSES
    assert data.source == "CIFAR-10 (JPEG copy, 50 of 60,000 images)"
    assert data.provenance["source"] == data.source
    assert data.provenance["file"] == source.name
    assert data.provenance["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert samples(data.test) == expected(files, CIFAR10_CLASSES, "test/")
    assert samples(data.train, data.validation) == expected(files, CIFAR10_CLASSES, "train/")


@pytest.mark.parametrize(
    ("ending", "file_format", "label"),
    [("jpeg", "JPEG", "CIFAR-10 (JPEG copy)"), ("png", "PNG", "CIFAR-10 (image copy)")],
)
def test_a_whole_copy_says_only_what_it_is(
    params_for, tree, write, tmp_path, monkeypatch, ending, file_format, label
):
    monkeypatch.setattr(known, "_CIFAR10_COUNTS", {"train": 30, "test": 20})
    write(tmp_path / "cifar10-images.zip", tree(cifar_layout(), ending, file_format))

    assert prepare(params_for("cifar10"), tmp_path / "out", raw_directory=tmp_path).source == label


@pytest.mark.parametrize(
    ("layout", "found"),
    [
        (cifar_layout((*CIFAR10_CLASSES[:9], "lorry")), "['test', 'train'] with classes airplane"),
        (cifar_layout(CIFAR10_CLASSES[:9]), "['test', 'train'] with classes airplane"),
        ({"train": cifar_layout()["train"]}, "['train'] with classes airplane"),
        ({"": cifar_layout()["train"]}, "['train'] with classes airplane"),
    ],
    ids=["another class", "nine classes", "no test", "one level"],
)
def test_a_copy_of_something_else_is_refused(params_for, tree, write, tmp_path, layout, found):
    source = write(tmp_path / "cifar10-images.tar.gz", tree(layout))
    with pytest.raises(DataError) as caught:
        prepare(params_for("cifar10"), tmp_path / "out", raw_directory=tmp_path)
    assert str(caught.value).startswith(f"{source}: holds {found}")
    assert "allowed: train/ and test/ with airplane, automobile, bird" in str(caught.value)


# --- CIFAR-10, the official archive ------------------------------------------------------------


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Write a small archive in the official layout; gives its folder and (label, image) pairs."""
    rng = np.random.default_rng(0)
    members, pairs = {}, {"train": [], "test": []}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        images = rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
        labels = rng.permutation(10).tolist()
        pairs["test" if name == "test_batch" else "train"] += zip(labels, images, strict=True)
        planes = images.transpose(0, 3, 1, 2).reshape(10, 3072)  # red, green, blue, row by row
        members[name] = pickle.dumps({"data": planes, "labels": labels}, protocol=2)
    members["batches.meta"] = pickle.dumps({"label_names": list(CIFAR10_CLASSES)}, protocol=2)

    raw = tmp_path / "raw"
    raw.mkdir()
    with tarfile.open(raw / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    archive_md5 = md5((raw / "cifar-10-python.tar.gz").read_bytes())
    monkeypatch.setattr(CIFAR10, "tgz_md5", archive_md5)
    batches = [[name, md5(content)] for name, content in members.items() if "batch_" in name]
    monkeypatch.setattr(CIFAR10, "train_list", batches)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(members["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(members["batches.meta"])})
    return raw, pairs


def test_the_official_archive_gives_its_pixels(params_for, official):
    raw, pairs = official
    data = prepare(params_for("cifar10", image_size=32), raw / "out", raw_directory=raw)

    check_shapes(data, 10, size=32)
    counters = {k: Counter((n, image.tobytes()) for n, image in v) for k, v in pairs.items()}
    assert samples(data.test) == counters["test"]
    assert samples(data.train, data.validation) == counters["train"]
    assert data.source == "CIFAR-10"
    assert data.class_names == CIFAR10_CLASSES
    archive = raw / "cifar-10-python.tar.gz"
    assert data.provenance["file"] == archive.name
    assert data.provenance["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_the_official_images_are_resized(params_for, official):
    raw, pairs = official
    data = prepare(params_for("cifar10", image_size=16), raw / "out", raw_directory=raw)

    check_shapes(data, 10, size=16)
    originals = np.stack([image for _, image in pairs["test"]]).reshape(10, 16, 2, 16, 2, 3)
    assert data.test.labels.tolist() == [label for label, _ in pairs["test"]]
    difference = data.test.images.mean(axis=(1, 2)) - originals.mean(axis=(1, 2, 3, 4))
    assert np.abs(difference).max() < 3
    close = np.corrcoef(data.test.images.ravel(), originals.mean(axis=(2, 4)).ravel())[0, 1]
    assert close > 0.9


def test_the_official_archive_comes_before_a_copy(params_for, official, tree, write):
    raw, _ = official
    write(raw / "cifar10-images.zip", tree(cifar_layout()))

    assert prepare(params_for("cifar10"), raw / "out", raw_directory=raw).source == "CIFAR-10"


def test_an_official_archive_with_another_checksum_is_refused(params_for, official, tree, write):
    raw, _ = official
    archive = raw / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    write(raw / "cifar10-images.zip", tree(cifar_layout()))  # never taken in its place
    with pytest.raises(
        DataError,
        match=rf"^{archive}: the checksum is not that of the official archive "
        rf"\(md5 {CIFAR10.tgz_md5}\); .*remove it",
    ):
        prepare(params_for("cifar10"), raw / "out", raw_directory=raw)


def test_unpacked_batches_without_their_archive_have_no_digest_of_nothing(params_for, official):
    raw, _ = official
    prepare(params_for("cifar10"), raw / "out", raw_directory=raw)
    (raw / "cifar-10-python.tar.gz").unlink()

    data = prepare(params_for("cifar10"), raw / "out", raw_directory=raw)
    assert data.provenance["sha256"] != hashlib.sha256().hexdigest()


@pytest.fixture
def served(official, monkeypatch):
    """Serve the archive over HTTP; as many bytes of it as are set."""
    content = (official[0] / "cifar-10-python.tar.gz").read_bytes()
    state = SimpleNamespace(content=content, num_bytes=len(content))

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content[: state.num_bytes])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
        monkeypatch.setattr(CIFAR10, "url", url)
        yield state
        server.shutdown()


def test_what_is_missing_is_downloaded(params_for, served, tmp_path):
    new = tmp_path / "new"
    assert prepare(params_for("cifar10"), tmp_path / "out", raw_directory=new).source == "CIFAR-10"
    assert (new / "cifar-10-python.tar.gz").read_bytes() == served.content


@pytest.mark.parametrize("ending", ["interrupted", "cut short"])
def test_a_download_that_breaks_off_leaves_nothing_in_the_way(
    params_for, served, monkeypatch, tmp_path, ending
):
    new = tmp_path / "new"

    def retrieve(_, filename):
        Path(filename).write_bytes(served.content[:1000])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if ending == "interrupted":
            patch.setattr(utils, "_urlretrieve", retrieve)
        patch.setattr(served, "num_bytes", 1000)
        with pytest.raises((KeyboardInterrupt, DataError)):
            prepare(params_for("cifar10"), tmp_path / "out", raw_directory=new)
        assert list(new.iterdir()) == []
    assert prepare(params_for("cifar10"), tmp_path / "out", raw_directory=new).source == "CIFAR-10"


def test_without_archive_and_network_the_three_ways_out_are_named(params_for, tmp_path):
    raw = tmp_path / "raw"
    with pytest.raises(DataError, match=r"CIFAR-10 could not be downloaded \(.*refused") as info:
        prepare(params_for("cifar10"), raw / "out", raw_directory=raw)
    assert re.search(
        rf"\(1\) put the official cifar-10-python\.tar\.gz into {raw}; "
        r"\(2\) .* as cifar10-images\.tar\.gz, \.tar, \.tgz or \.zip with train/<class>/ .*; "
        r"\(3\) .*dataset=digits .*dataset=PATH",
        str(info.value),
    )


# --- the stage ---------------------------------------------------------------------------------


def files_below(folder, prefix=""):
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(f"{prefix}{path.relative_to(folder)}" for path in files)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("case", ["cifar10", "bad image", "small class", "gone"])
def test_a_failed_prepare_leaves_no_output(params_for, tree, write, tmp_path, workspace, case):
    files = tree({"": {"ant": 2 if case == "small class" else 5, "bee": 5}})
    if case == "bad image":
        files["bee/4.png"] = files["bee/4.png"][:60]
    source = write(tmp_path / "set", files)
    dataset = {"cifar10": "cifar10", "gone": tmp_path / "gone"}.get(case, source)
    with pytest.raises(DataError):
        prepare_data.main(params_for(dataset), Workspace())

    assert files_below(workspace) == []
    assert not (workspace / "data" / "prepared").exists()


def test_the_stage_writes_the_set_and_its_counts(params_for, tree, write, tmp_path, workspace):
    source = write(tmp_path / "set.zip", tree({"": {"ant": 5, "bee": 5}}))
    prepare_data.main(params_for(source, labeled_fraction=0.5), Workspace())

    data = load_prepared(workspace / "data" / "prepared")
    written = json.loads((workspace / "metrics" / "data.json").read_text())
    assert written["counts"] == data.counts()
    assert written["source"] == data.source == "image folder set.zip"
    assert written["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
