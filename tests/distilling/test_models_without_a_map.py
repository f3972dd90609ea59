"""Teachers and students without a feature map: by logits, by pooled features, or refused."""

import dataclasses

import numpy as np
import pytest

from distillation.base.methods import EXPERIMENTS, further_methods
from distillation.base.params import make_params
from distillation.data.prepared import PreparedData, Split
from distillation.distilling.cache_plan import describe_plan, plan_cache
from distillation.distilling.storing import store_teacher_outputs
from distillation.distilling.students import distillation_training
from distillation.distilling.teacher_outputs import open_teacher_outputs, output_settings
from distillation.models.creation import create_classifier
from distillation.models.names import ModelError
from distillation.training.loop import fit
from distillation.training.runtime import CPU
from distillation.training.setup import Setup, to_device
from distillation.training.supervised import control_training, teacher_training

LOGITS_ALONE, POOLED = "coat_tiny", "pit_ti_224"
WITH_A_MAP = "test_resnet"
NEEDED = {"exp2": "pooled", "exp3": "map", "exp3_scaled": "map", "attention": "map",
          "similarity": "map"}  # fmt: skip


def make_split(num_samples):
    generator = np.random.default_rng(num_samples)
    images = generator.integers(0, 256, (num_samples, 32, 32, 3)).astype(np.uint8)
    return Split(images=images, labels=np.arange(num_samples) % 2)


@pytest.fixture(scope="module")
def setup_for(tiny_values):
    """Return a function that makes what all trainings share, of four images or fewer."""

    def build(num_labeled=4, **values):
        data = PreparedData(
            train=make_split(4),
            validation=make_split(2),
            test=make_split(2),
            labeled=np.arange(num_labeled),
            class_names=("a", "b", "c"),
            source="noise",
            view_seed=1,
            provenance={},
        )
        settings = {
            "image_size": 32,
            "teacher_stem_stride": None,
            "student_stem_stride": None,
            "student": WITH_A_MAP,
            "epochs": 1,
        }
        params = make_params({**tiny_values, **settings, **values})
        return Setup(params=params, data=data, sets=to_device(data, CPU.device), runtime=CPU)

    return build


def make_teacher(name):
    return create_classifier(name, num_classes=3, image_size=32, seed=0)


def distil(method, setup, teacher_name, stored_in=None):
    teacher = make_teacher(teacher_name)
    stored = None
    if stored_in is not None:
        settings = output_settings(setup)
        store_teacher_outputs(teacher, setup.sets.train, stored_in, cache_gb=1, **settings)
        stored = open_teacher_outputs(setup, teacher, stored_in)
    training = distillation_training(method, setup, 0, teacher=teacher, stored=stored)
    return training, fit(training, runtime=CPU)


@pytest.mark.parametrize(
    ("teacher", "method", "plan"),
    [(LOGITS_ALONE, "exp1", "none"), (LOGITS_ALONE, "dist", "none"), (POOLED, "exp2", "pooled")],
)
def test_such_a_teacher_teaches_by_what_it_has_stored_and_live(
    teacher, method, plan, setup_for, tmp_path
):
    setup = setup_for()
    training, stored = distil(method, setup, teacher, tmp_path / "targets")
    _, live = distil(method, setup, teacher)
    assert training.settings["stored"]["feature_shape"] == ([] if plan == "none" else [256])
    assert (tmp_path / "targets" / "features.npy").exists() is (plan == "pooled")
    assert training.teacher_outputs == "stored"
    for term, value in stored.history[0].terms.items():
        assert value == pytest.approx(live.history[0].terms[term], rel=1e-2)


@pytest.mark.parametrize("name", [LOGITS_ALONE, POOLED])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_methods_that_compare_more_than_it_has_refuse_it(name, role, setup_for):
    has = {LOGITS_ALONE: "only logits", POOLED: "no map of features, only their mean"}[name]
    names = {"teacher": WITH_A_MAP, "student": WITH_A_MAP, role: name}
    setup = setup_for(student=names["student"])
    teacher = make_teacher(names["teacher"])
    methods = (*EXPERIMENTS, *further_methods()) if role == "teacher" else EXPERIMENTS
    for method in methods:
        needed = NEEDED.get(method)
        if needed is None or (needed == "pooled" and name == POOLED):
            distillation_training(method, setup, 0, teacher=teacher, stored=None)
            continue
        with pytest.raises(ModelError) as caught:
            distillation_training(method, setup, 0, teacher=teacher, stored=None)
        assert str(caught.value) == (
            f"{role}: got {name}, which has {has}, but {method} compares feature "
            f"{'maps' if needed == 'map' else 'vectors'}; allowed: another {role}, or a method of "
            "logits alone such as exp1"
        )


def test_a_student_learns_pooled_features(setup_for):
    _, result = distil("exp2", setup_for(student=POOLED), WITH_A_MAP)
    assert 0 < result.history[0].terms["feature"] < 2


@pytest.mark.parametrize(
    ("shape", "features", "line"),
    [
        ((), "none", "logits are stored, the teacher has no feature map;"),
        ((5,), "pooled", "logits and pooled features are stored, the teacher has no feature map;"),
    ],
)
def test_no_more_is_planned_than_a_teacher_has(shape, features, line):
    plan = plan_cache(num_views=1, num_samples=10, num_classes=2, feature_shape=shape, cache_gb=1.0)
    assert plan.features == features
    assert plan.num_bytes == 10 * (2 + sum(shape)) * 2
    assert f"1 view of 10 images: {line}" in describe_plan(plan, cache_gb=1.0)
    none = dataclasses.replace(plan, features="none")
    assert none.num_bytes == 10 * 2 * 2


# A batch of one image


@pytest.mark.parametrize("values", [{"batch_size": 1}, {"num_labeled": 1}])
def test_students_in_batches_of_one_are_refused(values, setup_for):
    setup = setup_for(**values)
    sentence = (
        "batch_size: got 1, but test_resnet normalises over the batch, and has a single value per "
        "channel at image_size 32; allowed for it: 2 or more images in a batch"
    )
    with pytest.raises(ModelError) as caught:
        control_training(setup, 0)
    assert str(caught.value) == sentence
    with pytest.raises(ModelError) as caught:
        distillation_training("exp1", setup, 0, teacher=make_teacher("test_vit"), stored=None)
    assert str(caught.value) == sentence


def test_a_teacher_in_batches_of_one_is_refused_if_it_is_trained(setup_for):
    values = {"teacher": WITH_A_MAP, "teacher_batch_size": 1}
    with pytest.raises(ModelError, match=r"^teacher_batch_size: got 1, but test_resnet normalises"):
        teacher_training(setup_for(**values), 0)
    teacher_training(setup_for(**values, teacher_epochs=0), 0)
