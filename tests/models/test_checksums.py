"""A damaged file of weights is refused, wherever the damage is."""

import json

import pytest
import safetensors.torch

from distillation.models.info import METADATA_KEY, ModelInfo
from distillation.models.names import ModelError
from tests.helpers.checkpoints import read, refused, same
from tests.helpers.sealed import flip_bit, flips

DAMAGED = (
    r"which is damaged: it does not fit its checksum; fetch or write it again; if a stage wrote "
    r"it: delete .*safetensors and run `dvc checkout .*safetensors`; if DVC's cache is damaged too "
)


def header_bytes(path):
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def read_or_message(path):
    try:
        return read(path)
    except ModelError as error:
        return str(error)


@pytest.mark.parametrize("place", ["values", "first", "last"])
def test_a_flipped_bit_of_a_weight_is_refused(saved, place):
    start, end = header_bytes(saved), saved.stat().st_size
    position = {"values": (start + end) // 2, "first": start, "last": end - 1}[place]
    flip_bit(saved, position, 0)
    refused(saved, DAMAGED)
    flip_bit(saved, position, 0)
    read(saved)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(saved):
    content, before = saved.read_bytes(), read(saved)
    ends = header_bytes(saved)
    about = content.index(b'"__metadata__"')
    places = [
        *((about + place, bit) for place, bit in flips(content.index(b"}", about), count=80)),
        *flips(ends, count=60, seed=1),
        *flips(len(content), count=30, seed=2),
    ]
    num_refused = 0
    for position, bit in places:
        flip_bit(saved, position, bit)
        found = read_or_message(saved)
        if isinstance(found, str):
            assert "; " in found
            num_refused += 1
        else:
            assert same(found.state, before.state)
            assert found.info == before.info
        saved.write_bytes(content)
    assert num_refused > 0.95 * len(places)


@pytest.mark.parametrize("old", ["test_efficientnet", '\\"image_size\\": 64', '\\"d\\"'])
def test_what_a_file_says_of_its_model_is_checked_too(saved, old):
    content = saved.read_bytes()
    new = old.replace("efficientnet", "efficientnex").replace("64", "65").replace("d", "e")
    assert content.count(old.encode()) == 1
    saved.write_bytes(content.replace(old.encode(), new.encode()))
    refused(saved, DAMAGED)


def test_exchanged_tensors_of_equal_size_are_refused(saved):
    state = safetensors.torch.load_file(saved)
    with safetensors.safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    names = [name for name in state if name.endswith(("bn1.weight", "bn1.bias"))][:2]
    assert state[names[0]].shape == state[names[1]].shape
    state[names[0]], state[names[1]] = state[names[1]], state[names[0]]
    safetensors.torch.save_file(state, saved, metadata=metadata)
    refused(saved, DAMAGED)


@pytest.mark.parametrize("length", [0, 5, 100, 0.5, -1])
def test_a_file_cut_short_is_refused_with_the_way_out(saved, length):
    content = saved.read_bytes()
    saved.write_bytes(
        content[: int(length * len(content)) if isinstance(length, float) else length]
    )
    if length == 5:
        refused(saved, "is no file of weights: it begins with")
    else:
        refused(saved, r"; fetch or write it again; if a stage wrote it: delete .* `dvc checkout ")


def test_an_entry_that_is_damaged_does_not_make_a_file_one_from_elsewhere(saved, weights):
    state = safetensors.torch.load_file(saved)
    with safetensors.safe_open(saved, framework="pt") as file:
        text = file.metadata()[METADATA_KEY]
    for metadata in ({METADATA_KEY[:-1] + "o": text}, {METADATA_KEY: text[:-1]}):
        safetensors.torch.save_file(state, saved, metadata=metadata)
        refused(saved, DAMAGED)
    without = {key: value for key, value in json.loads(text).items() if key != "sha256"}
    for metadata in (None, {"format": "pt"}, {METADATA_KEY: json.dumps(without)}):
        safetensors.torch.save_file(state, saved, metadata=metadata)
        assert same(read(saved).state, state)
    assert read(saved).info != ModelInfo()
