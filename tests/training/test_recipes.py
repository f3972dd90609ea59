"""Recipes and the settings of views, made of parameters and prepared data."""

import dataclasses

import numpy as np
import pytest
import torch

from distillation.base.params import ParamError, make_params
from distillation.data.prepared import PreparedData, Split
from distillation.training.cropping import ResizedCrop
from distillation.training.recipes import student_recipe, teacher_recipe, view_settings
from distillation.training.runtime import CPU
from distillation.training.setup import Setup, to_device
from distillation.training.views import ViewSettings


def make_split(side):
    return Split(images=np.zeros((4, side, side, 3), np.uint8), labels=np.arange(4) % 2)


def setup_of(tiny_values, *, prepared_size=8, **values):
    data = PreparedData(
        train=make_split(prepared_size),
        validation=make_split(8),
        test=make_split(8),
        labeled=np.arange(4),
        class_names=("a", "b"),
        source="nothing",
        view_seed=3,
        provenance={},
    )
    params = make_params({**tiny_values, **values})
    return Setup(params=params, data=data, sets=to_device(data, torch.device("cpu")), runtime=CPU)


RICH = {
    "augmentation": "resized_crop",
    "resized_crop_area": [0.2, 0.9],
    "resized_crop_aspect": [0.5, 2],
    "interpolation": "bicubic",
    "color_jitter": 0.4,
    "mixup": 0.2,
    "cutmix": 1,
}


def test_the_committed_parameters_shift_and_do_nothing_else(tiny_values):
    expected = ViewSettings(view_seed=3, crop_padding=1, horizontal_flip=False)
    assert view_settings(setup_of(tiny_values)) == expected


@pytest.mark.parametrize("prepared_size", [8, 12])
def test_every_parameter_reaches_the_views(tiny_values, prepared_size):
    found = view_settings(setup_of(tiny_values, prepared_size=prepared_size, **RICH))
    assert found == ViewSettings(
        view_seed=3,
        crop_padding=0,
        horizontal_flip=False,
        resized_crop=ResizedCrop(
            size=8,
            min_area=0.2,
            max_area=0.9,
            min_aspect=0.5,
            max_aspect=2.0,
            interpolation="bicubic",
        ),
        color_jitter=0.4,
        mixup=0.2,
        cutmix=1.0,
    )


def test_what_a_crop_does_not_use_makes_no_other_views(tiny_values):
    """Nothing is trained again for it where states are found by their fingerprint."""
    shifted = [
        view_settings(setup_of(tiny_values, resized_crop_area=area)) for area in ([0.1, 1], [1, 1])
    ]
    resized = [
        view_settings(setup_of(tiny_values, augmentation="resized_crop", crop_padding=padding))
        for padding in (0, 3)
    ]
    assert shifted[0] == shifted[1]
    assert resized[0] == resized[1] != shifted[0]


def test_teacher_and_students_see_the_same_views(tiny_values):
    setup = setup_of(tiny_values, **RICH)
    train = setup.sets.train
    recipes = teacher_recipe(setup, train, seed=0), student_recipe(setup, train, seed=1)
    assert recipes[0].views == recipes[1].views == view_settings(setup)
    assert dataclasses.asdict(recipes[0])["views"]["resized_crop"]["max_area"] == 0.9


def test_images_prepared_larger_are_not_shifted(tiny_values):
    message = (
        "^augmentation: got crop; must be resized_crop, since the training images were prepared "
        "with 12 pixels and image_size is 8$"
    )
    with pytest.raises(ParamError, match=message):
        view_settings(setup_of(tiny_values, prepared_size=12))


def recipes_of(tiny_values, **values):
    setup = setup_of(tiny_values, **values)
    train = setup.sets.train
    return {
        "teacher_": teacher_recipe(setup, train, seed=0),
        "": student_recipe(setup, train, seed=0),
    }


@pytest.mark.parametrize("role", ["teacher_", ""])
def test_rate_and_decay_that_are_given_are_taken(tiny_values, role):
    values = {f"{role}learning_rate": 0.3, f"{role}weight_decay": 0.0, f"{role}batch_size": 2}
    for length in (1, 30):
        recipe = recipes_of(tiny_values, **values, **{f"{role}epochs": length})[role]
        assert (recipe.learning_rate, recipe.weight_decay) == (0.3, 0.0)


@pytest.mark.parametrize("role", ["teacher_", ""])
def test_the_rate_goes_with_the_root_of_the_batch_size(tiny_values, role):
    """Of four images there is no batch of more."""
    rates = [
        recipes_of(tiny_values, **{f"{role}batch_size": size})[role].learning_rate
        for size in (1, 2, 3, 4, 128)
    ]
    expected = [2.5e-3 * (size / 128) ** 0.5 for size in (1, 2, 2, 4, 4)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("role", ["teacher_", ""])
def test_weights_forget_as_much_in_a_training_of_any_length(tiny_values, role):
    """Four images make one step an epoch, or two; a training of few steps forgets less."""
    for length, size, steps, product in (
        (0, 4, 1, 7 / 150**3), (1, 4, 1, 7 / 150**3), (75, 4, 75, 0.875),
        (150, 4, 150, 7.0), (3_520, 4, 3_520, 7.0), (3_520, 2, 7_040, 7.0),
    ):  # fmt: skip
        values = {f"{role}epochs": length, f"{role}batch_size": size}
        recipe = recipes_of(tiny_values, **values)[role]
        assert recipe.learning_rate * recipe.weight_decay * steps == pytest.approx(product)
    other = {f"{role}epochs": 2_000, f"{role}batch_size": 4, f"{role}learning_rate": 0.7}
    decay = recipes_of(tiny_values, **other)[role].weight_decay
    assert decay == pytest.approx(7.0 / (0.7 * 2_000))


@pytest.mark.parametrize("given", [{"pretrained": True}, {"checkpoint": "weights.safetensors"}])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_given_weights_are_trained_gently(tiny_values, role, given):
    prefix = "teacher_" if role == "teacher" else ""
    ((key, value),) = given.items()
    scratch = recipes_of(tiny_values)
    gentle = recipes_of(tiny_values, **{f"{role}_{key}": value})
    for name in ("teacher_", ""):
        share = 0.2 if name == prefix else 1.0
        assert gentle[name].learning_rate == pytest.approx(share * scratch[name].learning_rate)
        forgotten = [one[name].learning_rate * one[name].weight_decay for one in (scratch, gentle)]
        assert forgotten[1] == pytest.approx((0.1 if name == prefix else 1.0) * forgotten[0])
