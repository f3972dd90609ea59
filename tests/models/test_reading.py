"""Checkpoints by path, folder or name, and what they say of their model."""

import argparse
import json
import os

import pytest
import safetensors.torch
import torch

from distillation.models.checksums import make_metadata
from distillation.models.info import METADATA_KEY, ModelInfo
from tests.helpers.checkpoints import read, refused, same, scaled


def test_the_files_of_timms_train_say_what_they_were_trained_as(weights, path):
    args = argparse.Namespace(
        model="test_resnet.r160_in1k", img_size=96, input_size=None, mean=[0.1, 0.2, 0.3], std=None
    )
    torch.save(
        {"epoch": 3, "arch": "test_resnet", "state_dict": scaled(weights), "version": 2,
         "args": args, "metric": 71.2, "state_dict_ema": weights, "optimizer": {"state": {}}}, path
    )  # fmt: skip
    checkpoint = read(path)
    assert same(checkpoint.state, weights)
    assert checkpoint.info == ModelInfo(
        architecture="test_resnet.r160_in1k",
        image_size=96,
        mean=(0.1, 0.2, 0.3),
    )


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"input_size": [3, 64, 64]}, 64),
        ({"img_size": None}, None),
        ({"model": "hf-hub:timm/test_resnet.r160_in1k"}, None),
        ({"mean": ["a"], "std": 3, "img_size": "64"}, None),
    ],
)
def test_arguments_of_train_that_say_nothing_certain(weights, path, options, size):
    args = argparse.Namespace(**{"model": "test_resnet"} | options)
    torch.save({"arch": "test_resnet", "state_dict": weights, "args": args}, path)
    info = read(path).info
    assert info == ModelInfo(architecture="test_resnet", image_size=size)


def test_metadata_of_safetensors_is_read(weights, tmp_path):
    info = ModelInfo(architecture="test_resnet", stem_stride=1, image_size=32, class_names=("a",))
    former = {METADATA_KEY: json.dumps(info.to_values())}  # without a checksum
    for metadata in (former, make_metadata(info, weights)):
        safetensors.torch.save_file(weights, tmp_path / "a.pt", metadata=metadata)
        assert read(tmp_path / "a.pt").info == info
    safetensors.torch.save_file(weights, tmp_path / "a.pt", metadata={"format": "pt", "b": "{"})
    assert read(tmp_path / "a.pt").info == ModelInfo()


@pytest.mark.parametrize("name", ["{}", "local-dir:{}", "Local_Dir:{}", "{}/model.safetensors"])
def test_a_folder_in_the_manner_of_hugging_face(weights, folder, name):
    checkpoint = read(name.format(folder))
    assert same(checkpoint.state, weights)
    assert checkpoint.info.architecture == "test_resnet.r160_in1k"
    assert checkpoint.info.class_names == ("a", "b", "c", "d")
    assert checkpoint.info.image_size == 160


def test_a_file_of_another_name_is_not_described_by_the_folders_config(weights, folder):
    torch.save(dict(weights), folder / "older.pth")
    assert read(folder / "older.pth").info == ModelInfo()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: (f / "config.json").unlink(), "which is a folder without config.json; allowed"),
        (
            lambda f: (f / "model.safetensors").unlink(),
            "a folder without a file of weights; allowed",
        ),
        (
            lambda f: (f / "config.json").write_text("{"),
            r"whose config\.json cannot be used \(Expect",
        ),
        (lambda f: (f / "config.json").write_text("[1]"), "cannot be used .it is no mapping."),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "vit"}'),
            "names no model of timm",
        ),
    ],
)
def test_folders_that_lack_something(folder, change, match):
    change(folder)
    for name in (folder, f"local-dir:{folder}"):
        refused(name, match)


def test_a_folder_of_train_names_the_files_in_it(weights, tmp_path):
    for name in ("checkpoint-9.pth.tar", "model_best.pth.tar"):
        torch.save(dict(weights), tmp_path / name)
    refused(
        tmp_path, r"or a file of weights, such as checkpoint-9\.pth\.tar or model_best\.pth\.tar"
    )


def test_a_folder_with_several_files_of_weights(weights, folder):
    (folder / "model.safetensors").unlink()
    for name in ("a.pth", "b.pth"):
        torch.save(dict(weights), folder / name)
    refused(folder, r"several files of weights \(a\.pth, b\.pth\); allowed: the path of one")


def test_names_of_nothing(tmp_path):
    refused(tmp_path / "a.pth", "no such file; allowed: a file of weights, or a folder with")
    refused("https://a.b/c.pth", "which is an address; allowed: a file .*: fetch it first")
    refused(f"local-dir:{tmp_path / 'a'}", "which is no folder; allowed: a folder with config.json")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "which is no regular file")


def test_names_in_a_file_bring_no_terminal_codes_or_lines_into_messages(weights, path):
    torch.save({"a\x1b[31m\nb": torch.tensor(float("nan"))}, path)
    refused(path, r"in which a\\x1b\[31m\\nb holds NaN")
    torch.save(dict(weights) | {"a\x1b[31m\nb": 3}, path)
    assert read(path).remarks[0].endswith(r"(a\x1b[31m\nb)")
