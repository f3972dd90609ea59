"""A model whose weights are on disk."""

import pytest

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
