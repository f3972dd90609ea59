"""What a file of weights says of its model, and what it may not say."""

import json

import pytest

from distillation.models.info import ModelInfo


@pytest.mark.parametrize(
    "arguments",
    [
        {"checkpoint_path": "/etc/passwd"},
        {"pretrained_cfg_overlay": {"architecture": "hf-hub:evil/x"}},
        {"features_only": True},
        {"cache_dir": "/tmp"},
        {"a b": 1},
        5,
    ],
)
def test_what_a_file_says_of_its_model_names_no_other_files(arguments):
    with pytest.raises(ValueError, match=r"^model_args "):
        ModelInfo.from_config({"architecture": "resnet18", "model_args": arguments})
    text = json.dumps({"architecture": "resnet18", "model_args": arguments})
    assert ModelInfo.from_metadata({"distillation": text}) == ModelInfo()


def test_a_models_own_arguments_are_taken():
    config = {"architecture": "resnet18", "model_args": {"drop_rate": 0.1, "num_classes": 3}}
    assert ModelInfo.from_config(config).model_args == {"drop_rate": 0.1}
