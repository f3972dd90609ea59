"""Metrics files that are damaged are named before a number is made of them."""

import json
import os
import re

import pytest

from distillation.base.checksums import seal
from distillation.results.metrics_files import (
    MetricsFileError,
    read_baseline_file,
    read_object,
    read_trainings_file,
)
from tests.helpers.sealed import flip_bit, flips
from tests.results.records import BALANCE, SEEDS, TEACHER

BASELINE = {
    "teacher": {**TEACHER, "model": "big"},
    "student": {"model": "small", "acc": 10.0},
    "balance": BALANCE,
    "data": "CIFAR-10",
}
EPOCH = {"epoch": 1, "terms": {"loss": 2.0}, "validation": {"acc": 9.5}, "learning_rate": 0.1}
TRAININGS = {"data": "CIFAR-10", "seeds": [{**SEEDS["exp1"][0], "history": [EPOCH]}]}
REPAIR = r"; delete it and run its stage again, or get it back by `git checkout -- .*\.json`$"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.json"


def refused(read, path, match):
    with pytest.raises(MetricsFileError, match=rf"^{re.escape(str(path))}: {match}.*{REPAIR}"):
        read(path)


@pytest.mark.parametrize(
    ("read", "content"), [(read_trainings_file, TRAININGS), (read_baseline_file, BASELINE)]
)
def test_whole_files_are_read_and_damaged_ones_are_named(path, read, content):
    path.write_text(json.dumps(content, indent=2))
    assert read(path) == content
    text = path.read_bytes()
    for length in (0, 1, len(text) // 2, len(text) - 1):
        path.write_bytes(text[:length])
        refused(read, path, r"cannot be read as JSON \(")
    path.unlink()
    refused(read, path, r"cannot be read as JSON \(.*No such file")


@pytest.mark.parametrize(
    ("read", "content"), [(read_trainings_file, TRAININGS), (read_baseline_file, BASELINE)]
)
def test_a_flipped_bit_changes_no_value(path, read, content):
    path.write_text(json.dumps(seal(content)))
    text = path.read_bytes()
    key = text.index(b"sha256")
    places = [(position, bit) for position in range(key, len(text)) for bit in (0, 4)]
    for position, bit in [*flips(len(text), count=200), *places]:
        flip_bit(path, position, bit)
        try:
            assert read(path) == content
        except MetricsFileError:
            pass
        path.write_bytes(text)
    path.write_text(json.dumps({**seal(content), "data": "others"}))
    refused(read, path, "does not fit its checksum")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_none_are_refused_wherever_they_stand(path, number):
    path.write_text(f'{{"models": [{{"acc": {number}}}]}}')
    refused(read_object, path, rf"cannot be read as JSON \(it holds {number}, which is")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[1]", "got list; allowed: an object"),
        ("null", "got NoneType; allowed: an object"),
        ("[" * 100_000, r"cannot be read as JSON \("),
        ("\x00", r"cannot be read as JSON \("),
    ],
)
def test_other_content_is_refused(path, text, match):
    path.write_text(text)
    refused(read_object, path, match)


def test_a_pipe_in_the_place_of_the_file_is_named(path):
    os.mkfifo(path)
    refused(read_object, path, r"cannot be read as JSON \(a\.json is no regular file\)")


@pytest.mark.parametrize("key", [key for key in TRAININGS["seeds"][0] if key != "history"])
def test_a_training_without_one_of_its_values_is_refused(path, key):
    record = {name: value for name, value in TRAININGS["seeds"][0].items() if name != key}
    path.write_text(json.dumps({"seeds": [record]}))
    refused(read_trainings_file, path, rf"seeds\.0\.{key} is missing")
    path.write_text(json.dumps({"seeds": [{**record, key: ["x"]}]}))
    refused(read_trainings_file, path, rf"seeds\.0\.{key}: got \['x'\]; must be a valid")


@pytest.mark.parametrize("content", [{}, {"seeds": []}, {"seeds": {}}, {"seeds": [3]}])
def test_a_file_without_trainings_is_refused(path, content):
    path.write_text(json.dumps(content))
    refused(read_trainings_file, path, r"seeds")
