"""The teacher's stored outputs are those it gives live, and belong to it and to no other."""

import dataclasses
import json
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distillation.base.limits import SpaceError
from distillation.data import rows as rows_module
from distillation.data.prepared import PreparedData, Split
from distillation.data.rows import Indices
from distillation.distilling import storing
from distillation.distilling.cache_plan import CachePlan, describe_plan, plan_cache
from distillation.distilling.storing import store_teacher_outputs
from distillation.distilling.teacher_outputs import (
    TeacherOutputsError,
    fingerprint_teacher_outputs,
    load_teacher_outputs,
)
from distillation.models.classifier import Classifier
from distillation.models.creation import create_classifier
from distillation.training.batches import iterate_batches
from distillation.training.cropping import ResizedCrop
from distillation.training.loop import fit
from distillation.training.runtime import CPU, Runtime
from distillation.training.setup import to_device
from distillation.training.supervised import LabelObjective
from distillation.training.values import Recipe, Training
from distillation.training.views import ViewSettings, augment
from tests.helpers.sealed import flip_bit, flips, reseal
from tests.helpers.thirds import NUM_CLASSES, SIZE, make_split

NUM_VIEWS = 3
VIEWS = ViewSettings(view_seed=5, crop_padding=2, horizontal_flip=True)
BF16 = Runtime(device=torch.device("cpu"), precision="bf16")
FILES = {"meta.json", "samples.npy", "logits.npy"}
AGAIN = (
    r"delete .* and run `dvc checkout .*`; if DVC's cache is damaged too "
    r"\(docs/damaged-files\.md\), delete both and run teacher_targets again"
)


DATA = PreparedData(
    train=make_split(36, seed=1),
    validation=make_split(6, seed=2),
    test=make_split(6, seed=3),
    labeled=np.array([0, 1, 4, 5, 6, 7, 9, 11, 12, 15, 16, 17, 19, 20, 22, 25, 27, 28, 30, 33, 35]),
    class_names=("a", "b", "c"),
    source="noise",
    view_seed=VIEWS.view_seed,
    provenance={},
)
SAMPLES = DATA.labeled.tolist()
IMAGES = torch.tensor(DATA.train.images)


def make_teacher(seed=7):
    """A teacher with outputs of ordinary size: its running statistics are those of the images."""
    teacher = create_classifier(
        "test_efficientnet", num_classes=NUM_CLASSES, image_size=SIZE, seed=seed, stem_stride=1
    )
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average over all batches, here of one
    with torch.no_grad():
        teacher.train()(IMAGES.permute(0, 3, 1, 2))
        teacher.net.classifier.weight.mul_(10)
    return teacher


TEACHER = make_teacher().eval()
FEATURE_SHAPE = (256, 2, 2)
CACHE_GB = {  # just enough
    "map": NUM_VIEWS * len(SAMPLES) * (NUM_CLASSES + 1024) * 2 / 1e9,
    "pooled": NUM_VIEWS * len(SAMPLES) * (NUM_CLASSES + 256) * 2 / 1e9,
    "none": 0.0,
}
PLANS = list(CACHE_GB)


@pytest.fixture(autouse=True, scope="module")
def several_batches():
    """21 samples are batches of 8, 8 and 5."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(storing, "_BATCH_SIZE", 8)
        yield


def compute(directory, *, teacher=TEACHER, plan="map", data=DATA, runtime=CPU, views=VIEWS):
    return store_teacher_outputs(
        teacher,
        to_device(data, runtime.device).train,
        directory,
        data=data,
        views=views,
        num_views=NUM_VIEWS,
        cache_gb=CACHE_GB[plan],
        runtime=runtime,
    )


def fingerprint(**changes):
    given = {"data": DATA, "views": VIEWS, "num_views": NUM_VIEWS, "runtime": CPU, **changes}
    return fingerprint_teacher_outputs(given.pop("teacher", TEACHER), **given)


def load(directory, **changes):
    return load_teacher_outputs(
        directory,
        fingerprint=fingerprint(**changes),
        train=to_device(changes.get("data", DATA), torch.device("cpu")).train,
        device=torch.device("cpu"),
    )


def test_outputs_that_do_not_fit_on_the_disk_are_refused_before_the_teacher_runs(
    tmp_path, monkeypatch
):
    small = SimpleNamespace(f_bavail=100, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    message = r"outputs needs 0\.00 GB and its disk has 0\.00 GB free; make room, or use fewer "
    with pytest.raises(SpaceError, match=message + "num_views or less teacher_cache_gb$"):
        compute(tmp_path / "outputs")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Give a folder of stored outputs for every plan."""
    root = tmp_path_factory.mktemp("stored")
    for plan in PLANS:
        assert compute(root / plan, plan=plan).features == plan
    return {plan: root / plan for plan in PLANS}


@pytest.fixture
def copy_of(stored, tmp_path):
    """Give a copy of stored outputs that may be damaged."""

    def build(plan="map"):
        return shutil.copytree(stored[plan], tmp_path / "targets")

    return build


def says(teacher, sample, view):
    """What the teacher says of one view of one sample, alone in its batch."""
    images = augment(IMAGES[[sample]], torch.tensor([sample]), view, settings=VIEWS)
    with torch.no_grad():
        return teacher.eval().outputs(images)


@pytest.fixture(scope="module")
def live():
    """Give the live outputs by view and sample; computed in another order and one by one."""
    return {
        (view, sample): says(TEACHER, sample, view)
        for sample in reversed(SAMPLES)
        for view in reversed(range(NUM_VIEWS))
    }


def at(samples):
    host = torch.tensor(samples)
    return Indices(host, host)


def assert_rounded(found, expected):
    """Equal to the rounding to float16: 11 binary digits, and another batch's last digit."""
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=2**-11 + 1e-5, atol=2e-5)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# What is stored


def plan_for(cache_gb, *, num_classes=10, feature_shape=(5, 3, 2)):
    return plan_cache(
        num_views=4,
        num_samples=100,
        num_classes=num_classes,
        feature_shape=feature_shape,
        cache_gb=cache_gb,
    )


MAP_BYTES, POOLED_BYTES, LOGIT_BYTES = 4 * 100 * 40 * 2, 4 * 100 * 15 * 2, 4 * 100 * 10 * 2


@pytest.mark.parametrize(
    ("space", "features", "num_bytes"),
    [
        (10**9, "map", MAP_BYTES),
        (MAP_BYTES + 1, "map", MAP_BYTES),
        (MAP_BYTES, "map", MAP_BYTES),
        (MAP_BYTES - 1, "pooled", POOLED_BYTES),
        (POOLED_BYTES, "pooled", POOLED_BYTES),
        (POOLED_BYTES - 1, "none", LOGIT_BYTES),
        (LOGIT_BYTES, "none", LOGIT_BYTES),
        (LOGIT_BYTES - 1, "none", LOGIT_BYTES),
        (0, "none", LOGIT_BYTES),
    ],
)
def test_as_much_is_stored_as_fits(space, features, num_bytes):
    plan = plan_for(space / 1e9)
    assert (plan.features, plan.num_bytes) == (features, num_bytes)


def test_a_map_of_one_position_is_stored_as_a_map():
    """It is no larger than its mean."""
    plan = plan_for(POOLED_BYTES / 1e9, feature_shape=(5, 1, 1))
    assert (plan.features, plan.num_bytes) == ("map", POOLED_BYTES)


def test_more_classes_leave_less_space_for_features():
    cache_gb = MAP_BYTES / 1e9
    found = [plan_for(cache_gb, num_classes=classes).features for classes in (10, 11, 35, 36, 99)]
    assert found == ["map", "pooled", "pooled", "none", "none"]


@pytest.mark.parametrize("plan", PLANS)
def test_the_planned_size_is_that_of_the_files(plan, stored):
    arrays = [np.load(path, mmap_mode="r") for path in stored[plan].glob("[lf]*.npy")]
    expected = plan_cache(
        num_views=NUM_VIEWS,
        num_samples=len(SAMPLES),
        num_classes=NUM_CLASSES,
        feature_shape=FEATURE_SHAPE,
        cache_gb=CACHE_GB[plan],
    )
    assert load(stored[plan]).plan == expected
    assert sum(array.nbytes for array in arrays) == expected.num_bytes
    for array in arrays:
        assert array.dtype == np.float16
        assert array.filename.stat().st_size == array.offset + array.nbytes
    features = set() if plan == "none" else {"features.npy"}
    assert contents(stored[plan]).keys() == FILES | features


def test_the_plan_follows_from_shapes_alone(tmp_path):
    """Other weights, pixels and views make no difference."""
    darker = Split(images=DATA.train.images // 7, labels=DATA.train.labels[::-1].copy())
    for plan in PLANS:
        found = compute(
            tmp_path / plan,
            plan=plan,
            teacher=make_teacher(seed=8),
            data=dataclasses.replace(DATA, train=darker),
            views=dataclasses.replace(VIEWS, view_seed=6, crop_padding=0),
            runtime=BF16,
        )
        assert found == load_plan(tmp_path / plan) == compute(tmp_path / "x", plan=plan)


def load_plan(directory):
    meta = json.loads((directory / "meta.json").read_text())["plan"]
    return CachePlan(**{**meta, "feature_shape": tuple(meta["feature_shape"])})


@pytest.mark.parametrize(
    ("plan", "stored_things", "line"),
    [
        ("map", ["logits", "feature maps"], "logits and feature maps are stored;"),
        (
            "pooled",
            ["logits", "pooled features"],
            "logits and pooled features are stored, feature maps will be computed live "
            "in every step (teacher_cache_gb would be 0.1 for map);",
        ),
        (
            "none",
            ["logits"],
            "logits are stored, features will be computed live in every step (teacher_cache_gb "
            "would be 0.1 for pooled, 0.1 for map);",
        ),
    ],
)
def test_what_is_stored_is_said(plan, stored_things, line, tmp_path, caplog):
    with caplog.at_level("INFO"):
        found = compute(tmp_path / "targets", plan=plan)
    assert found.summary() == {
        "num_views": NUM_VIEWS,
        "num_samples": len(SAMPLES),
        "feature_shape": list(FEATURE_SHAPE),
        "stored": stored_things,
        "num_bytes": found.num_bytes,
    }
    said = describe_plan(found, cache_gb=CACHE_GB[plan])
    assert f"{NUM_VIEWS} views of {len(SAMPLES)} images: {line}" in said
    assert said.endswith("(teacher_cache_gb)")
    assert said in caplog.messages
    one = describe_plan(dataclasses.replace(found, num_views=1), cache_gb=CACHE_GB[plan])
    assert one.startswith(f"teacher_targets: 1 view of {len(SAMPLES)} images: ")
    for view in range(1, NUM_VIEWS + 1):
        assert any(f"view {view}/3: 21 images in" in message for message in caplog.messages)


# Stored is live, to rounding


def test_the_test_would_notice_another_sample_or_view(live):
    """Outputs differ by far more than the rounding."""
    for part in (0, 1):
        values = torch.stack([outputs[part].flatten() for outputs in live.values()])
        distances = torch.cdist(values, values) / values.abs().max()
        assert (distances + torch.eye(len(values))).min() > 0.01


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("order", ["sorted", "shuffled", "repeated", "single"])
def test_stored_outputs_are_the_live_ones_of_that_very_view(plan, order, stored, live):
    samples = {
        "sorted": SAMPLES,
        "shuffled": np.random.default_rng(0).permutation(SAMPLES).tolist(),
        "repeated": [35, 4, 4, 35, 0, 35],
        "single": [28],
    }[order]
    targets = load(stored[plan])
    for view in range(NUM_VIEWS):
        taken = targets.take(at(samples), view)
        assert taken.keys() == ({"logits"} if plan == "none" else {"logits", "features"})
        logits = torch.cat([live[view, sample].logits for sample in samples])
        assert_rounded(taken["logits"], logits)
        if plan != "none":
            features = torch.cat([live[view, sample].features for sample in samples])
            if plan == "pooled":
                features = features.mean(dim=(2, 3), keepdim=True)
            assert_rounded(taken["features"], features)


def test_a_maps_channels_and_positions_are_in_their_place(stored, live):
    taken = load(stored["map"]).take(at([17]), 1)["features"]
    assert taken.shape == (1, *FEATURE_SHAPE)
    by_hand = live[1, 17].features[0]
    for channel, row, column in ((0, 0, 0), (3, 0, 1), (100, 1, 0), (255, 1, 1)):
        assert float(taken[0, channel, row, column]) == pytest.approx(
            float(by_hand[channel, row, column]), rel=1e-3, abs=1e-6
        )
    # Transposed it would be another map.
    assert not torch.allclose(taken.transpose(2, 3), live[1, 17].features, rtol=0.1)
    assert load(stored["pooled"]).take(at([17]), 1)["features"].shape == (1, 256, 1, 1)


def test_the_same_outputs_for_more_samples_are_the_same(stored, tmp_path, live):
    """What is stored of a sample does not depend on which others are labelled."""
    everything = dataclasses.replace(DATA, labeled=np.arange(len(DATA.train)))
    train = to_device(everything, torch.device("cpu")).train
    store_teacher_outputs(
        TEACHER,
        train,
        tmp_path / "targets",
        data=everything,
        views=VIEWS,
        num_views=NUM_VIEWS,
        cache_gb=1.0,
        runtime=CPU,
    )
    targets, few = load(tmp_path / "targets", data=everything), load(stored["map"])
    for name, values in targets.take(at(SAMPLES), 2).items():
        torch.testing.assert_close(values, few.take(at(SAMPLES), 2)[name], rtol=1e-3, atol=2e-5)
    assert_rounded(targets.take(at([2, 3]), 2)["logits"][:1], says(TEACHER, 2, 2).logits)


@pytest.mark.parametrize("view", [0, 1])
def test_a_sample_without_stored_outputs_is_an_error(view, stored):
    targets = load(stored["map"])
    with pytest.raises((IndexError, TeacherOutputsError)):
        targets.take(at([0, 2]), view)


@pytest.mark.parametrize("view", [NUM_VIEWS, -1])
def test_a_view_that_is_not_stored_is_an_error(view, stored):
    with pytest.raises(IndexError, match=rf"view {view} of some of these samples is not stored"):
        load(stored["map"]).take(at([0]), view)


@pytest.mark.parametrize("plan", PLANS)
def test_of_what_is_stored_a_loss_takes_what_it_needs(plan, stored):
    targets = load(stored[plan])
    has = {"map": {"map", "pooled", None}, "pooled": {"pooled", None}, "none": {None}}[plan]
    for kind in ("map", "pooled", None):
        assert targets.has_features(kind) is (kind in has)
        taken = targets.select(kind).take(at([1, 5]), 0)
        has_features = kind is not None and kind in has
        assert taken.keys() == ({"logits", "features"} if has_features else {"logits"})
        for name, values in taken.items():
            assert torch.equal(values, targets.take(at([1, 5]), 0)[name])


def test_streamed_outputs_are_the_resident_ones(stored, monkeypatch):
    resident = load(stored["map"])
    assert not resident.is_streamed
    logits_bytes = (stored["map"] / "logits.npy").stat().st_size
    for limit, kinds in ((0, ("map", "pooled", None)), (logits_bytes, ("map", "pooled"))):
        monkeypatch.setattr(rows_module, "_CPU_RESIDENT_BYTES", limit)
        streamed = load(stored["map"])
        for kind in ("map", "pooled", None):
            assert streamed.select(kind).is_streamed is (kind in kinds)
        for view in range(NUM_VIEWS):
            expected = resident.take(at([35, 0, 7, 7]), view)
            for name, values in streamed.take(at([35, 0, 7, 7]), view).items():
                assert torch.equal(values, expected[name])


@pytest.mark.parametrize("seed", [0, 1])
def test_every_training_seed_reads_the_same_outputs(seed, stored):
    """Each has its own order of samples and starts with another view."""
    before = contents(stored["map"])
    sets = to_device(DATA, torch.device("cpu"))
    student = create_classifier("test_resnet", num_classes=3, image_size=SIZE, seed=0)
    seen = []

    class Comparing(LabelObjective):
        def forward(self, model, images, labels, teacher_outputs):
            with torch.no_grad():
                outputs = TEACHER.outputs(images)
            assert_rounded(teacher_outputs["logits"], outputs.logits)
            assert_rounded(teacher_outputs["features"], outputs.features)
            seen.append(images)
            return super().forward(model, images, labels, teacher_outputs)

    training = Training(
        name="x",
        model=student,
        objective=Comparing(),
        train=dataclasses.replace(sets.train, teacher_outputs=load(stored["map"])),
        validation=sets.validation,
        recipe=make_recipe(seed),
    )
    fit(training, runtime=CPU)
    assert len(seen) == NUM_VIEWS * 3
    first = {image.numpy().tobytes() for images in seen[:3] for image in images}
    samples = torch.tensor(SAMPLES)
    view = augment(IMAGES[samples], samples, seed, settings=VIEWS)
    assert first == {image.numpy().tobytes() for image in view}
    assert contents(stored["map"]) == before


CROP = ResizedCrop(
    size=SIZE, min_area=0.3, max_area=1.0, min_aspect=0.75, max_aspect=1.3, interpolation="bicubic"
)
RICHER = {
    "bilinear": {"resized_crop": dataclasses.replace(CROP, interpolation="bilinear")},
    "bicubic": {"resized_crop": CROP},
    "jitter": {"color_jitter": 0.5},
    "mixup": {"mixup": 0.8},
    "cutmix": {"cutmix": 1.0},
    "everything": {"resized_crop": CROP, "color_jitter": 0.3, "mixup": 0.4, "cutmix": 1.0},
}


@pytest.mark.parametrize("option", RICHER)
def test_outputs_of_richer_views_are_the_live_ones(option, tmp_path):
    """In another order and other batches than they were stored in."""
    views = dataclasses.replace(VIEWS, **RICHER[option])
    compute(tmp_path / "targets", views=views)
    outputs = load(tmp_path / "targets", views=views)
    train = dataclasses.replace(to_device(DATA, torch.device("cpu")).train, teacher_outputs=outputs)
    order = torch.tensor(np.random.default_rng(1).permutation(SAMPLES))
    plain, logits = load_plain_logits(order), []
    for view in range(NUM_VIEWS):
        for batch in iterate_batches(train, order, 5, view, views=views):
            with torch.no_grad():
                live = TEACHER.eval().outputs(batch.images)
            assert_rounded(batch.teacher_outputs["logits"], live.logits)
            assert_rounded(batch.teacher_outputs["features"], live.features)
            logits.append(live.logits)
    # The views are others than those without the option.
    assert not torch.allclose(torch.cat(logits), plain, atol=0.05)


def test_images_may_be_larger_than_the_views_that_are_cut_from_them(tmp_path):
    """The training images have 29 pixels; models see, and are measured at, 20."""
    images = np.random.default_rng(3).integers(0, 256, (36, 29, 29, 3)).astype(np.uint8)
    data = dataclasses.replace(DATA, train=Split(images=images, labels=DATA.train.labels))
    views = dataclasses.replace(VIEWS, crop_padding=0, **RICHER["everything"])
    plan = compute(tmp_path / "targets", data=data, views=views)
    assert plan.feature_shape == FEATURE_SHAPE
    outputs = load(tmp_path / "targets", data=data, views=views)
    train = to_device(data, torch.device("cpu")).train
    train = dataclasses.replace(train, teacher_outputs=outputs)
    for batch in iterate_batches(train, torch.tensor(SAMPLES), 4, 1, views=views):
        assert batch.images.shape[2:] == (SIZE, SIZE)
        with torch.no_grad():
            live = TEACHER.eval().outputs(batch.images)
        assert_rounded(batch.teacher_outputs["logits"], live.logits)
        assert_rounded(batch.teacher_outputs["features"], live.features)


def load_plain_logits(order):
    train = to_device(DATA, torch.device("cpu")).train
    with torch.no_grad():
        return torch.cat(
            [
                TEACHER.eval()(batch.images)
                for view in range(NUM_VIEWS)
                for batch in iterate_batches(train, order, len(order), view, views=VIEWS)
            ]
        )


def test_mixed_views_of_more_samples_have_other_partners(tmp_path):
    """Unmixed outputs of more samples serve fewer as well; mixed ones do not."""
    more = dataclasses.replace(DATA, labeled=np.arange(len(DATA.train)))
    few = to_device(DATA, torch.device("cpu")).train
    for views in (VIEWS, dataclasses.replace(VIEWS, mixup=0.4)):
        compute(tmp_path / "targets", data=more, views=views)
        expected = fingerprint(data=more, views=views)
        read = {"fingerprint": expected, "train": few, "device": torch.device("cpu")}
        if not views.mixes:
            load_teacher_outputs(tmp_path / "targets", **read)
            continue
        message = (
            "mixed views of 36 samples are stored, now there are 21, so that other partners are "
            "mixed in; run teacher_targets again"
        )
        with pytest.raises(TeacherOutputsError, match=message):
            load_teacher_outputs(tmp_path / "targets", **read)


def make_recipe(seed=0):
    return Recipe(
        epochs=NUM_VIEWS,
        batch_size=8,
        learning_rate=1e-3,
        weight_decay=0.0,
        warmup_fraction=0.0,
        seed=seed,
        views=VIEWS,
        num_views=NUM_VIEWS,
    )


def test_in_bf16_the_teachers_bf16_outputs_are_stored(tmp_path, live):
    compute(tmp_path / "targets", runtime=BF16)
    targets = load(tmp_path / "targets", runtime=BF16)
    samples = torch.tensor(SAMPLES[:8])  # the first batch: every bit of bf16 fits in a float16
    images = augment(IMAGES[samples], samples, 0, settings=VIEWS)
    with torch.no_grad(), BF16.autocast():
        outputs = TEACHER.outputs(images)
    assert outputs.logits.dtype == outputs.features.dtype == torch.bfloat16
    taken = targets.take(at(SAMPLES[:8]), 0)
    assert torch.equal(taken["logits"], outputs.logits.float())
    torch.testing.assert_close(taken["features"], outputs.features.float(), rtol=0, atol=1e-7)
    in_float32 = torch.cat([live[0, sample].logits for sample in SAMPLES[:8]])
    assert not torch.allclose(taken["logits"], in_float32, rtol=1e-3, atol=1e-6)


# The teacher


def weights_of(teacher):
    return {key: value.clone() for key, value in teacher.state_dict().items()}


def test_the_teacher_is_frozen_and_does_not_change(tmp_path, monkeypatch, stored):
    teacher = make_teacher().train()
    before = weights_of(teacher)
    modes, outputs_of = [], teacher.outputs

    def outputs(images):
        is_training = any(module.training for module in teacher.modules())
        found = outputs_of(images)
        modes.append((is_training, torch.is_grad_enabled(), found.logits.requires_grad))
        return found

    monkeypatch.setattr(teacher, "outputs", outputs)
    state = torch.get_rng_state()
    compute(tmp_path / "targets", teacher=teacher)
    assert len(modes) == 1 + NUM_VIEWS * 3  # one for the shape of its features
    assert set(modes) == {(False, False, False)}
    after = weights_of(teacher)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert contents(tmp_path / "targets") == contents(stored["map"])
    teacher.train()(IMAGES[:8].permute(0, 3, 1, 2))  # in train() they would have changed
    assert any(not torch.equal(before[key], value) for key, value in weights_of(teacher).items())


@pytest.mark.parametrize("value", [1e6, float("inf"), float("nan"), -70_000.0], ids=str)
def test_a_teacher_beyond_float16_is_refused(value, tmp_path):
    teacher = make_teacher()
    with torch.no_grad():
        teacher.net.classifier.bias[1] = value
    with pytest.raises(
        TeacherOutputsError, match=r"^logits\.npy: the teacher's outputs are not finite"
    ):
        compute(tmp_path / "targets", teacher=teacher)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("plan", PLANS)
def test_features_beyond_float16_are_refused_where_they_are_stored(plan, tmp_path):
    teacher = make_teacher()
    last = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    with torch.no_grad():
        last.bias[0] = 1e5
        teacher.net.classifier.weight[:, 0] = 0
    if plan == "none":
        compute(tmp_path / "targets", teacher=teacher, plan=plan)
        return
    with pytest.raises(
        TeacherOutputsError, match=r"^features\.npy: .* beyond the range of float16"
    ):
        compute(tmp_path / "targets", teacher=teacher, plan=plan)
    assert list(tmp_path.iterdir()) == []


def test_the_mean_of_large_features_is_computed_in_float32(tmp_path):
    """In float16 the sum of four would be beyond its range."""
    teacher = make_teacher()
    last = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    with torch.no_grad():
        last.bias[0] = 40_000
        teacher.net.classifier.weight[:, 0] = 0
    compute(tmp_path / "targets", teacher=teacher, plan="pooled", runtime=BF16)
    targets = load(tmp_path / "targets", teacher=teacher, runtime=BF16)
    assert targets.take(at([0]), 0)["features"][0, 0].item() == pytest.approx(40_000, rel=0.01)


# Whole or not at all


class PowerCutError(Exception):
    """The teacher's machine goes."""


@pytest.mark.parametrize("error", [PowerCutError, KeyboardInterrupt])
@pytest.mark.parametrize("is_there", [True, False])
def test_an_interrupted_run_leaves_everything_as_it_was(
    is_there, error, tmp_path, monkeypatch, stored
):
    directory = tmp_path / "targets"
    if is_there:
        shutil.copytree(stored["map"], directory)
    teacher, calls = make_teacher(), []
    outputs_of = teacher.outputs

    def outputs(images):
        calls.append(len(images))
        if len(calls) == 1 + 3 + 2:  # the shape, the first view, the second's second batch
            raise error
        return outputs_of(images)

    monkeypatch.setattr(teacher, "outputs", outputs)
    with pytest.raises(error):
        compute(directory, teacher=teacher, plan="pooled")
    assert calls == [1, 8, 8, 5, 8, 8]
    if is_there:
        assert [path.name for path in tmp_path.iterdir()] == ["targets"]
        assert contents(directory) == contents(stored["map"])
    else:
        assert list(tmp_path.iterdir()) == []


def test_computing_again_replaces_what_was_stored(copy_of, tmp_path, stored):
    other = make_teacher(seed=8)
    directory = copy_of("map")
    compute(directory, teacher=other, plan="pooled")
    assert [path.name for path in tmp_path.iterdir()] == ["targets"]
    taken = load(directory, teacher=other).take(at([9]), 2)
    assert_rounded(taken["logits"], says(other, 9, 2).logits)
    compute(directory)
    assert contents(directory) == contents(stored["map"])  # to the bit


# Whose outputs they are


def one_weight_more(key):
    teacher = make_teacher().eval()
    with torch.no_grad():
        teacher.state_dict()[key].flatten()[0] += 1e-3
    return teacher


def with_changed(part, change):
    """The data with a changed copy of one array of its training split."""
    arrays = {"images": DATA.train.images.copy(), "labels": DATA.train.labels.copy()}
    arrays[part] = change(arrays[part])
    return dataclasses.replace(DATA, train=Split(**arrays))


def another_pixel(images):
    images[2, 3, 4, 1] ^= 1  # of a sample that is not even labelled
    return images


CHANGES = {
    "a weight": (["teacher weights"], {"teacher": one_weight_more("net.classifier.bias")}),
    "a statistic": (
        ["teacher weights"],
        {"teacher": one_weight_more("net.bn1.running_mean")},
    ),
    "another teacher": (
        ["teacher", "teacher weights"],
        {"teacher": create_classifier("test_resnet", num_classes=3, image_size=SIZE, seed=7)},
    ),
    "the name": (
        ["teacher"],
        {"teacher": Classifier(TEACHER.net, name="another", num_classes=NUM_CLASSES)},
    ),
    "a pixel": (["prepared data"], {"data": with_changed("images", another_pixel)}),
    "labels": (
        ["prepared data"],
        {"data": with_changed("labels", lambda labels: (labels + 1) % 3)},
    ),
    "labelled samples": (
        ["prepared data"],
        {"data": dataclasses.replace(DATA, labeled=DATA.labeled[1:])},
    ),
    "view seed": (["view seed"], {"views": dataclasses.replace(VIEWS, view_seed=6)}),
    "the data's view seed": (
        ["prepared data", "view seed"],
        {
            "data": dataclasses.replace(DATA, view_seed=6),
            "views": dataclasses.replace(VIEWS, view_seed=6),
        },
    ),
    "crop padding": (["crop padding"], {"views": dataclasses.replace(VIEWS, crop_padding=3)}),
    "flip": (["horizontal flip"], {"views": dataclasses.replace(VIEWS, horizontal_flip=False)}),
    "resized crop": (
        [
            "augmentation",
            "crop size",
            "crop min area",
            "crop max area",
            "crop min aspect",
            "crop max aspect",
            "crop interpolation",
        ],
        {"views": dataclasses.replace(VIEWS, resized_crop=CROP)},
    ),
    "color jitter": (["color jitter"], {"views": dataclasses.replace(VIEWS, color_jitter=0.1)}),
    "mixup": (["mixup"], {"views": dataclasses.replace(VIEWS, mixup=0.1)}),
    "cutmix": (["cutmix"], {"views": dataclasses.replace(VIEWS, cutmix=0.1)}),
    "more views": (["num views"], {"num_views": NUM_VIEWS + 1}),
    "fewer views": (["num views"], {"num_views": NUM_VIEWS - 1}),
    "precision": (["precision"], {"runtime": BF16}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_mismatch_is_an_error_that_names_what_differs_and_nothing_else(change, stored):
    names, changes = CHANGES[change]
    with pytest.raises(TeacherOutputsError) as caught:
        load(stored["map"], **changes)
    message = str(caught.value)
    start, listed = message.split("; different: ")
    assert start == f"{stored['map']}: these outputs were computed for something else"
    listed, end = listed.split("; ")
    assert end == "run teacher_targets again"
    assert re.findall(r"(?:^|, )([a-z ]+) \(stored [^,]+, now [^)]+\)", listed) == names


def test_a_smaller_data_set_is_another_data_set(stored):
    """Its stored samples may lie beyond what there is now."""
    fewer = Split(images=DATA.train.images[:30], labels=DATA.train.labels[:30])
    data = dataclasses.replace(DATA, train=fewer, labeled=DATA.labeled[:9])
    expected = r"different: prepared data \(stored \w+, now \w+\); run"
    with pytest.raises(TeacherOutputsError, match=expected):
        load(stored["map"], data=data)


def load_for(samples, directory):
    train = to_device(DATA, torch.device("cpu")).train
    return load_teacher_outputs(
        directory,
        fingerprint=fingerprint(),
        train=dataclasses.replace(train, samples=torch.tensor(samples)),
        device=torch.device("cpu"),
    )


def test_the_outputs_of_all_samples_that_are_wanted_must_be_there(stored):
    directory = stored["map"]
    expected = load(directory).take(at([35, 4]), 1)
    found = load_for([4, 35], directory).take(at([35, 4]), 1)  # others may be there too
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    missing = rf"^{directory}: the outputs of 2 of 4 samples are missing"
    with pytest.raises(TeacherOutputsError, match=missing):
        load_for([0, 2, 3, 35], directory)


def test_a_sample_stored_twice_is_an_error_though_no_other_is_missing(copy_of):
    directory = copy_of()
    samples = np.load(directory / "samples.npy")
    samples[0] = samples[1]
    np.save(directory / "samples.npy", samples)
    reseal(directory)
    with pytest.raises(
        TeacherOutputsError, match=r"samples\.npy is damaged; run teacher_targets again"
    ):
        load_for(SAMPLES[1:], directory)


def test_a_mismatch_shows_both_values(stored):
    with pytest.raises(TeacherOutputsError, match=r"precision \(stored fp32, now bf16\)"):
        load(stored["map"], runtime=BF16)
    teacher = make_teacher(seed=8)
    short = [fingerprint(teacher=each)["teacher_weights"][:12] for each in (TEACHER, teacher)]
    expected = rf"teacher weights \(stored {short[0]}, now {short[1]}\)"
    with pytest.raises(TeacherOutputsError, match=expected):
        load(stored["map"], teacher=teacher)


def test_a_teacher_with_another_stride_is_another_teacher():
    """The same name and weights, other outputs."""
    one, two = (
        create_classifier(
            "test_efficientnet", num_classes=3, image_size=SIZE, seed=7, stem_stride=stride
        )
        for stride in (1, 2)
    )
    assert not torch.allclose(says(one, 0, 0).logits, says(two, 0, 0).logits, rtol=0.1)
    assert fingerprint(teacher=one) != fingerprint(teacher=two)


def test_whether_the_training_is_compiled_makes_no_difference(stored):
    load(stored["map"], runtime=dataclasses.replace(CPU, compiles=True))


def test_no_outputs_at_all_are_an_error(tmp_path):
    with pytest.raises(
        TeacherOutputsError,
        match=rf"^{tmp_path}/none: no complete outputs of a teacher .*; {AGAIN}$",
    ):
        load(tmp_path / "none")


@pytest.mark.parametrize("name", sorted(FILES | {"features.npy"}))
@pytest.mark.parametrize("length", [0, 5, 20, 100, 128, 0.5, -1], ids=lambda length: f"to {length}")
def test_a_file_cut_short_is_an_error(name, length, copy_of):
    directory = copy_of()
    content = (directory / name).read_bytes()
    length = int(length * len(content)) if isinstance(length, float) else length
    if name == "meta.json" and length == -1:
        length = -2  # its last byte is a newline
    (directory / name).write_bytes(content[:length])
    with pytest.raises(TeacherOutputsError, match=rf"^{directory}: no complete .*; {AGAIN}$"):
        load(directory)


@pytest.mark.parametrize("name", sorted(FILES | {"features.npy"}))
def test_a_missing_file_is_an_error(name, copy_of):
    directory = copy_of()
    (directory / name).unlink()
    with pytest.raises(TeacherOutputsError, match=rf"no complete outputs of a teacher .*{name}"):
        load(directory)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"3", b'"text"', b"{}", b"\xff\xfe\x00", b'{"fingerprint": {}}'],
    ids=repr,
)
def test_a_corrupted_description_is_an_error(content, copy_of):
    directory = copy_of()
    (directory / "meta.json").write_bytes(content)
    with pytest.raises(
        TeacherOutputsError, match=rf"^{directory}: no complete outputs of a teacher"
    ):
        load(directory)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("plan", "num_views", None),
        ("plan", "num_views", 2),
        ("plan", "num_samples", 22),
        ("plan", "feature_shape", 256),
        ("plan", "another", 1),
        ("fingerprint", "precision", None),
        ("fingerprint", "teacher", "test_resnet"),
    ],
)
def test_a_description_of_something_else_is_an_error(part, key, value, copy_of):
    directory = copy_of()
    meta = json.loads((directory / "meta.json").read_text())
    reseal(directory, **{part: {**meta[part], key: value}})
    with pytest.raises(TeacherOutputsError, match=rf"^{directory}: "):
        load(directory)


@pytest.mark.parametrize("name", sorted(FILES | {"features.npy"}))
def test_a_flipped_bit_is_an_error_that_names_the_file(name, copy_of):
    directory = copy_of()
    content = (directory / name).read_bytes()
    says = "again$" if name == "meta.json" else rf"\({name} does not fit its checksum\); {AGAIN}$"
    for position, bit in flips(len(content), count=20):
        flip_bit(directory / name, position, bit)
        with pytest.raises(TeacherOutputsError, match=rf"^{directory}: .*{says}"):
            load(directory)
        (directory / name).write_bytes(content)
    load(directory)


@pytest.mark.parametrize("name", sorted(FILES | {"features.npy"}))
def test_a_pipe_in_the_place_of_a_file_is_named(name, copy_of):
    directory = copy_of()
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(TeacherOutputsError, match=rf"\({name} is no regular file\); {AGAIN}$"):
        load(directory)


def test_outputs_of_a_former_version_have_no_checksum(copy_of):
    directory = copy_of()
    meta = json.loads((directory / "meta.json").read_text())
    del meta["sha256"]
    (directory / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(TeacherOutputsError, match=r"\(meta\.json has no checksum\); delete"):
        load(directory)


def test_files_of_another_length_are_an_error(copy_of):
    for name in ("logits.npy", "features.npy"):
        directory = copy_of()
        np.save(directory / name, np.load(directory / name)[:-1])
        reseal(directory)
        with pytest.raises(
            TeacherOutputsError,
            match=rf"{name} holds float16 of shape .*; delete .* again$",
        ):
            load(directory)
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("name", "position", "value"),
    [
        ("logits.npy", 21, ","),  # the type <f2 becomes ,f2
        ("logits.npy", 8, "6"),  # the header's length
        ("samples.npy", 128, "~"),  # sample 0 becomes 126 of 36
        ("samples.npy", 128, "\1"),  # sample 0 becomes 1, which is there already
    ],
)
def test_a_damaged_file_is_an_error(name, position, value, copy_of):
    directory = copy_of()
    content = bytearray((directory / name).read_bytes())
    content[position] = ord(value)
    (directory / name).write_bytes(content)
    with pytest.raises(TeacherOutputsError, match=rf"\({name} does not fit its checksum\); delete"):
        load(directory)
    reseal(directory)
    with pytest.raises(TeacherOutputsError, match=rf"^{directory}: "):
        load(directory)


# With a training


def test_targets_do_not_change_a_training_that_does_not_use_them(stored):
    sets = to_device(DATA, torch.device("cpu"))
    losses = []
    for targets in (None, load(stored["map"])):
        student = create_classifier("test_resnet", num_classes=3, image_size=SIZE, seed=0)
        training = Training(
            name="x",
            model=student,
            objective=LabelObjective(),
            train=dataclasses.replace(sets.train, teacher_outputs=targets),
            validation=sets.validation,
            recipe=make_recipe(),
        )
        result = fit(training, runtime=CPU)
        losses.append([record.terms["loss"] for record in result.history])
    assert losses[0] == losses[1]


def test_outputs_are_kept_while_the_same_code_and_inputs_would_make_them(tmp_path, caplog):
    directory = tmp_path / "targets"

    def is_kept(**changes):
        caplog.clear()
        with caplog.at_level("INFO"):
            compute(directory, **changes)
        return "is kept" in caplog.text

    assert not is_kept()
    assert is_kept()
    meta = json.loads((directory / "meta.json").read_text())
    for key in ("code", "torch"):
        reseal(directory, made_by={**meta["made_by"], key: "another"})
        assert not is_kept()
        assert is_kept()
    assert not is_kept(plan="pooled")
    assert not is_kept(plan="pooled", teacher=make_teacher(seed=8).eval())
    (directory / "logits.npy").write_bytes(b"")
    assert not is_kept(plan="pooled", teacher=make_teacher(seed=8).eval())
