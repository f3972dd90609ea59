"""Tiny models, images and their weights, for tests of models."""

import torch

from distillation.models.creation import create_classifier

NUM_CLASSES = 5
CLASS_NAMES = ("a", "b", "c", "d", "ü")
NAMES = ["test_efficientnet", "test_resnet", "test_vit"]


def create(name="test_efficientnet", **options):
    options = {"num_classes": NUM_CLASSES, "image_size": 64, "seed": 0} | options
    return create_classifier(name, **options)


def make_images(size=64, count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def states_equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


def weights_of(classifier):
    """Return copies, ready for safetensors."""
    return {
        key: value.clone(memory_format=torch.contiguous_format)
        for key, value in classifier.net.state_dict().items()
    }
