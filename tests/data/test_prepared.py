import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pytest

from distillation.data import prepared
from distillation.data.prepared import (
    SPLITS,
    PreparedData,
    PreparedDataError,
    Split,
    load_prepared,
    save_prepared,
)
from tests.helpers.sealed import flip_bit, flips, reseal

FILES = {
    *(f"{split}_{part}.npy" for split in SPLITS for part in ("images", "labels")),
    "labeled.npy",
    "meta.json",
}
META_KEYS = ("class_names", "source", "view_seed", "provenance", "fingerprint", "files")


def make_split(labels, seed):
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 4, 4, 3), dtype=np.uint8)
    return Split(images=images, labels=np.array(labels, dtype=np.int64))


@pytest.fixture
def data():
    return PreparedData(
        train=make_split([0, 1, 2, 1, 0, 2], seed=1),
        validation=make_split([2, 0, 1], seed=2),
        test=make_split([1, 1, 0, 2], seed=3),
        labeled=np.array([0, 2, 3], dtype=np.int64),
        class_names=("cat", "dög", "fox"),
        source="three animals",
        view_seed=17,
        provenance={"file": "animals.zip", "sha256": None, "counts": [1, 2]},
    )


@pytest.fixture
def saved(data, tmp_path):
    save_prepared(data, tmp_path / "set")
    return tmp_path / "set"


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_round_trip_gives_back_everything(data, saved):
    loaded = load_prepared(saved)

    assert {path.name for path in saved.iterdir()} == FILES
    for name in SPLITS:
        before, after = getattr(data, name), getattr(loaded, name)
        np.testing.assert_array_equal(after.images, before.images)
        np.testing.assert_array_equal(after.labels, before.labels)
        assert (after.images.dtype, after.labels.dtype) == (np.uint8, np.int64)
        assert len(after) == len(before)
    np.testing.assert_array_equal(loaded.labeled, data.labeled)
    for field in ("class_names", "source", "view_seed", "provenance"):
        assert getattr(loaded, field) == getattr(data, field)
    assert (loaded.num_classes, loaded.image_size) == (3, 4)


def test_images_are_mapped_and_read_only(saved):
    loaded = load_prepared(saved)

    for name in SPLITS:
        images = getattr(loaded, name).images
        assert isinstance(images, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            images[0] = 0


def test_images_in_another_memory_order_come_back_in_nhwc(data, tmp_path):
    planes = np.ascontiguousarray(data.test.images.transpose(0, 3, 1, 2))
    view = Split(images=planes.transpose(0, 2, 3, 1), labels=data.test.labels)
    save_prepared(dataclasses.replace(data, test=view), tmp_path / "set")

    images = load_prepared(tmp_path / "set").test.images
    np.testing.assert_array_equal(images, data.test.images)
    assert images.flags.c_contiguous


def test_saving_the_same_set_twice_gives_the_same_bytes(data, saved, tmp_path):
    save_prepared(data, tmp_path / "again")

    assert contents(tmp_path / "again") == contents(saved)


def test_save_creates_parents_and_a_readable_folder(data, tmp_path):
    save_prepared(data, tmp_path / "a" / "b" / "set")

    (tmp_path / "other").mkdir()
    modes = {path.stat().st_mode for path in (tmp_path / "other", tmp_path / "a" / "b" / "set")}
    assert len(modes) == 1
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["set"]


def test_save_replaces_an_older_set_and_its_extra_files(data, saved):
    (saved / "stale.txt").write_text("old")
    save_prepared(dataclasses.replace(data, source="newer"), saved)

    assert load_prepared(saved).source == "newer"
    assert {path.name for path in saved.iterdir()} == FILES


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("calls_before", [0, 3, 6])
def test_interrupted_save_keeps_the_old_set_and_no_temporary(
    data, saved, monkeypatch, calls_before, error
):
    before = contents(saved)
    save, calls = prepared.save_array, []

    def failing_save(path, array):
        calls.append(path)
        if len(calls) > calls_before:
            path.write_bytes(b"half")
            raise error
        save(path, array)

    monkeypatch.setattr(prepared, "save_array", failing_save)
    with pytest.raises(type(error)):
        save_prepared(dataclasses.replace(data, source="newer"), saved)

    assert len(calls) == calls_before + 1
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_interrupted_first_save_leaves_nothing(data, tmp_path):
    unserialisable = dataclasses.replace(data, provenance={"file": object()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_prepared(unserialisable, tmp_path / "set")

    assert list(tmp_path.iterdir()) == []


def test_counts_per_split_and_class(data):
    names = ("cat", "dög", "fox")
    assert data.counts() == {
        "train": dict(zip(names, (2, 2, 2), strict=True)),
        "validation": dict(zip(names, (1, 1, 1), strict=True)),
        "test": dict(zip(names, (1, 2, 1), strict=True)),
        "labeled": dict(zip(names, (1, 1, 1), strict=True)),
    }
    assert json.loads(json.dumps(data.counts())) == data.counts()


def test_counts_name_a_class_a_split_lacks(data):
    without_foxes = dataclasses.replace(data, test=make_split([0, 1], seed=3))

    assert without_foxes.counts()["test"] == {"cat": 1, "dög": 1, "fox": 0}


# The fingerprint


def test_the_fingerprint_is_written_and_read_back(data, saved):
    assert re.fullmatch(r"[0-9a-f]{64}", data.fingerprint)
    assert json.loads((saved / "meta.json").read_text())["fingerprint"] == data.fingerprint
    assert load_prepared(saved).fingerprint == data.fingerprint


def test_the_fingerprint_of_mapped_files_is_that_of_the_arrays(data, saved):
    mapped = dataclasses.replace(load_prepared(saved), stored_fingerprint=None)

    assert mapped.fingerprint == data.fingerprint


@pytest.mark.parametrize("hash_bytes", [1, 100, 2**30])
def test_the_fingerprint_does_not_depend_on_how_much_is_hashed_at_a_time(
    data, monkeypatch, hash_bytes
):
    expected = data.fingerprint
    monkeypatch.setattr("distillation.data.prepared._HASH_BYTES", hash_bytes)

    assert dataclasses.replace(data).fingerprint == expected


def test_the_fingerprint_is_of_pixels_wherever_they_lie_in_memory(data):
    turned = np.asfortranarray(data.train.images)
    assert not turned.flags.c_contiguous
    same = dataclasses.replace(data, train=Split(images=turned, labels=data.train.labels))

    assert same.fingerprint == data.fingerprint


def test_what_is_only_said_of_the_data_is_no_part_of_the_fingerprint(data):
    same = dataclasses.replace(data, source="elsewhere", provenance={"file": "other.zip"})

    assert same.fingerprint == data.fingerprint


def test_everything_a_training_can_see_changes_the_fingerprint(data):
    def with_split(name, **arrays):
        split = getattr(data, name)
        changed = {
            "images": arrays.get("images", split.images),
            "labels": arrays.get("labels", split.labels),
        }
        return dataclasses.replace(data, **{name: Split(**changed)})

    others = []
    for name in SPLITS:
        split = getattr(data, name)
        for index in ((0, 0, 0, 0), (-1, -1, -1, -1)):
            images = split.images.copy()
            images[index] ^= 1
            others.append(with_split(name, images=images))
        others.append(with_split(name, images=split.images.reshape(-1, 2, 8, 3)))
        others.append(with_split(name, images=split.images[::-1]))
        for position in (0, -1):
            labels = split.labels.copy()
            labels[position] = (labels[position] + 1) % 3
            others.append(with_split(name, labels=labels))
    others += [
        dataclasses.replace(data, train=data.test, test=data.train),
        dataclasses.replace(data, labeled=np.array([0, 2, 4])),
        dataclasses.replace(data, labeled=np.array([0, 2])),
        dataclasses.replace(data, class_names=("cat", "dög", "fix")),
        dataclasses.replace(data, class_names=("dög", "cat", "fox")),
        dataclasses.replace(data, view_seed=18),
    ]
    found = [other.fingerprint for other in (data, *others)]
    assert len(set(found)) == len(found)


# Damage


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(
        PreparedDataError, match=r"nowhere: not a complete .*run prepare_data again"
    ):
        load_prepared(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "garbage"])
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_or_damaged_file_is_an_error(saved, name, damage):
    path = saved / name
    if damage == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        half = content[: len(content) - 5]
        path.write_bytes({"empty": b"", "cut short": half, "garbage": b"\xff\x00nonsense"}[damage])

    with pytest.raises(PreparedDataError) as caught:
        load_prepared(saved)
    message = str(caught.value)
    assert message.startswith(f"{saved}: not a complete prepared data set (")
    assert message.endswith(
        f"); delete {saved} and run `dvc checkout {saved}`; if DVC's cache is damaged too "
        "(docs/damaged-files.md), delete both and run prepare_data again"
    )
    if damage == "missing":
        assert name in message


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_flipped_bit_is_an_error_that_names_the_file(saved, name):
    path = saved / name
    content = path.read_bytes()
    for position, bit in flips(len(content), count=20):
        flip_bit(path, position, bit)
        with pytest.raises(PreparedDataError) as caught:
            load_prepared(saved)
        if name != "meta.json":
            assert f" data set ({name} does not fit its checksum); delete " in str(caught.value)
        path.write_bytes(content)
    load_prepared(saved)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_pipe_or_device_in_the_place_of_a_file_is_named(saved, name):
    for place in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (saved / name).unlink()
        place(saved / name)
        with pytest.raises(PreparedDataError, match=rf"\({name} is no regular file\); delete "):
            load_prepared(saved)


def test_an_exchanged_file_of_another_set_is_an_error(data, saved, tmp_path):
    save_prepared(dataclasses.replace(data, test=make_split([1, 1, 0, 2], seed=9)), tmp_path / "b")
    shutil.copy(tmp_path / "b" / "test_images.npy", saved)

    with pytest.raises(PreparedDataError, match=r"\(test_images\.npy does not fit its checksum\)"):
        load_prepared(saved)


def test_a_set_of_a_former_version_has_no_checksum(saved):
    meta = json.loads((saved / "meta.json").read_text())
    del meta["sha256"]
    (saved / "meta.json").write_text(json.dumps(meta))

    with pytest.raises(PreparedDataError, match=r"\(meta\.json has no checksum\); delete "):
        load_prepared(saved)


@pytest.mark.parametrize("name", SPLITS)
def test_images_and_labels_that_differ_in_number_are_an_error(saved, name):
    np.save(saved / f"{name}_labels.npy", np.zeros(1, dtype=np.int64))
    reseal(saved)

    with pytest.raises(PreparedDataError, match=rf"{name} has \d images and 1 labels; run prepare"):
        load_prepared(saved)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '"text"'])
def test_another_json_in_the_place_of_meta_is_an_error(saved, content):
    (saved / "meta.json").write_text(content)

    with pytest.raises(PreparedDataError, match=r"\(meta\.json (holds no|has no)"):
        load_prepared(saved)


@pytest.mark.parametrize("key", META_KEYS)
def test_meta_without_its_keys_is_an_error(saved, key):
    reseal(saved)
    load_prepared(saved)
    reseal(saved, **{key: None})

    with pytest.raises(
        PreparedDataError, match=f"{re.escape(str(saved))}: .*run prepare_data again"
    ):
        load_prepared(saved)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        *((f"{split}_labels", f"{split} has labels beyond its 3 classes") for split in SPLITS),
        ("labeled", "labeled has samples beyond the 6 of train"),
    ],
)
@pytest.mark.parametrize("value", [-1, 1000])
def test_indices_out_of_range_are_an_error_at_either_end(saved, name, problem, value):
    """A negative one would be an index too, counted from the end."""
    path = saved / f"{name}.npy"
    indices = np.load(path)
    indices[0] = value
    np.save(path, indices)
    reseal(saved)

    with pytest.raises(PreparedDataError, match=f"{problem}; run prepare_data again"):
        load_prepared(saved)


@pytest.mark.parametrize("case", ["labeled", "class_names", "image size"])
def test_files_that_do_not_fit_each_other_are_an_error(data, saved, tmp_path, case):
    if case == "labeled":  # an index beyond the six training images
        np.save(saved / "labeled.npy", np.array([0, 6]))
        reseal(saved)
    elif case == "class_names":  # labels 0, 1, 2 with two names
        meta = json.loads((saved / "meta.json").read_text())
        reseal(saved, class_names=meta["class_names"][:-1])
    else:
        np.save(saved / "test_images.npy", np.zeros((4, 5, 5, 3), dtype=np.uint8))
        reseal(saved)

    with pytest.raises(
        PreparedDataError, match=f"{re.escape(str(saved))}: (?!not ).*; run prepare_data again"
    ):
        load_prepared(saved)


@pytest.mark.parametrize("side", [3, 5])
def test_training_images_may_be_larger_than_others_but_not_smaller(data, tmp_path, side):
    images = np.zeros((6, side, side, 3), dtype=np.uint8)
    train = Split(images=images, labels=data.train.labels)
    save_prepared(dataclasses.replace(data, train=train), tmp_path / "set")
    if side == 5:
        loaded = load_prepared(tmp_path / "set")
        assert (loaded.image_size, loaded.train.images.shape[1]) == (4, 5)
    else:
        with pytest.raises(
            PreparedDataError,
            match=r"train has images of \(3, 3, 3\), validation of \(4, 4, 3\); run prepare_data",
        ):
            load_prepared(tmp_path / "set")


def test_a_set_may_be_moved(data, saved, tmp_path):
    shutil.move(saved, tmp_path / "moved")

    np.testing.assert_array_equal(load_prepared(tmp_path / "moved").test.images, data.test.images)
