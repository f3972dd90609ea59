"""Images on which control and student part."""

import base64
import io

import numpy as np
from PIL import Image

from distillation.report.data_card import make_data_card
from distillation.report.examples import find_examples
from distillation.report.images import LARGEST_SIDE, to_data_uri


def decode(uri):
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_groups_hold_what_one_of_the_two_gets_right(project):
    inputs = project.read("control", "exp3")
    found = find_examples(inputs, method="exp3")
    place = inputs.predictions["exp3"].seeds.tolist().index(found.method_seed)
    labels = inputs.data.test.labels
    right = {
        name: inputs.predictions[name].logits[place].argmax(axis=1) == labels
        for name in ("control", "exp3")
    }
    assert found.control_seed == found.method_seed
    assert found.won.count == int((right["exp3"] & ~right["control"]).sum()) > 0
    assert found.lost.count == int((~right["exp3"] & right["control"]).sum()) > 0
    assert len(found.won.shown) == min(12, found.won.count)
    for example in found.won.shown:
        assert right["exp3"][example.index]
        assert not right["control"][example.index]
        assert example.student.is_true
        assert not example.control.is_true
        assert example.true == example.student.class_name
    for example in found.lost.shown:
        assert example.control.is_true
        assert not example.student.is_true


def test_the_picture_is_the_test_image(project):
    inputs = project.read("control", "exp3")
    example = find_examples(inputs, method="exp3").won.shown[0]
    np.testing.assert_array_equal(decode(example.image), inputs.data.test.images[example.index])


def test_the_teacher_always_says_something_of_the_label(make_project):
    classes = [f"c{number}" for number in range(9)]
    inputs = make_project(classes=classes, num_test=900).read("control", "exp3")
    teacher = inputs.predictions["teacher"]
    teacher.logits = np.zeros_like(teacher.logits) + np.arange(9)  # never sure of the first classes
    found = find_examples(inputs, method="exp3")
    for example in [*found.won.shown, *found.lost.shown]:
        assert len(example.teacher) == 3
        assert [one.class_name for one in example.teacher if one.is_true] == [example.true]


def test_the_control_has_another_seed_where_it_lacks_the_students(make_project):
    project = make_project()
    inputs = project.read("control", "exp3")
    seeds = inputs.predictions["control"].seeds
    seeds += 5
    for record in inputs.methods["control"]:
        record["seed"] += 5
    found = find_examples(inputs, method="exp3")
    assert found.control_seed in (5, 6)
    assert found.method_seed in (0, 1)


def test_without_control_or_method(project):
    assert find_examples(project.read("exp1"), method="exp1") is None
    assert find_examples(project.read("control"), method=None) is None


def test_large_images_are_made_smaller_and_small_ones_are_left():
    large = decode(to_data_uri(np.zeros((500, 500, 3), dtype=np.uint8)))
    assert large.shape == (LARGEST_SIDE, LARGEST_SIDE, 3)
    small = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(decode(to_data_uri(small)), small)


def test_the_data_card_counts_and_samples(make_project):
    card = make_data_card(make_project().read("control"))
    assert card.splits == ("train", "labelled", "validation", "test")
    assert card.totals == [12, 6, 6, 240]
    assert card.counts[0] == ("circle", [4, 2, 2, 80])
    assert [len(one.images) for one in card.samples] == [4, 4, 4]
    assert ("SHA-256", "ab" * 32) in card.facts
    many = make_project(classes=[f"c{number}" for number in range(150)], num_test=150)
    card = make_data_card(many.read("control"))
    assert [len(one.images) for one in card.samples] == [1] * 100
    assert card.num_classes == len(card.counts) == 150
