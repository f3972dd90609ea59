"""Weights of small models: as files, as a folder and in the cache of the Hub."""

import huggingface_hub.constants
import pytest
import timm
import torch
from timm.models import save_for_hf

from distillation.models.classifier import save_weights
from tests.helpers.tiny_models import CLASS_NAMES, create, make_images


@pytest.fixture(scope="module")
def trained():
    """A model whose running statistics are no longer those of the start."""
    model = create("test_efficientnet", seed=3).train()
    for _ in range(2):
        model(make_images(count=4))
    return model.eval()


@pytest.fixture
def saved(trained, tmp_path):
    path = tmp_path / "trained.safetensors"
    save_weights(trained, path, class_names=CLASS_NAMES)
    return path


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=4)


@pytest.fixture(scope="module")
def weights(net):
    return net.state_dict()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.bin"


@pytest.fixture
def folder(net, tmp_path):
    folder = tmp_path / "with ünï"
    save_for_hf(
        net, folder, model_config={"label_names": ["a", "b", "c", "d"]}, safe_serialization=True
    )
    return folder


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """An empty cache, and an address at which nothing listens."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for module in (huggingface_hub.constants, huggingface_hub.file_download):
        if hasattr(module, "HUGGINGFACE_CO_URL_TEMPLATE"):
            template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
