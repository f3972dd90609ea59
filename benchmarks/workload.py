"""What every way is given alike: models with random weights, random images, their views.

Speed depends on neither the weights nor what the images show, so nothing is downloaded.

Shapes: N images, B in a batch, H = W image size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.settings import (
    CROP_PADDING,
    IMAGE_SIZE,
    NUM_CLASSES,
    SEED,
    STUDENT,
    TEACHER,
    WARM_UP_STEPS,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One epoch to run."""

    stem_stride: int | None
    num_images: int
    batch_size: int
    num_workers: int
    device: torch.device

    @property
    def num_steps(self) -> int:
        """Batches of the epoch."""
        return -(-self.num_images // self.batch_size)


class SyntheticImages(Dataset[tuple[Tensor, int]]):
    """N images and labels from a seed, handed out as torchvision's CIFAR10 hands out its own."""

    def __init__(self, num_images: int, transform: Callable[[Image.Image], Tensor]) -> None:
        generator = np.random.default_rng(SEED)
        shape = (num_images, IMAGE_SIZE, IMAGE_SIZE, 3)
        self.images = generator.integers(0, 256, shape, dtype=np.uint8)
        self.labels = generator.integers(0, NUM_CLASSES, num_images).tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def make_dataset(job: Job) -> SyntheticImages:
    """Make the images with the views that tutorials and examples give CIFAR-10."""
    return SyntheticImages(
        job.num_images,
        transforms.Compose(
            [
                transforms.RandomCrop(IMAGE_SIZE, padding=CROP_PADDING, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
            ]
        ),
    )


def loader_options(job: Job) -> dict[str, Any]:
    """Return the DataLoader's options."""
    return {
        "batch_size": job.batch_size,
        "num_workers": job.num_workers,
        "pin_memory": job.device.type == "cuda",
    }


def make_loader(job: Job) -> DataLoader[tuple[Tensor, int]]:
    """Make a shuffling DataLoader over the images."""
    return DataLoader(make_dataset(job), shuffle=True, **loader_options(job))


def make_models(job: Job) -> tuple[nn.Module, nn.Module]:
    """Make teacher (in evaluation mode, as teachers should be) and student."""
    torch.manual_seed(SEED)
    teacher, student = (_make_model(name, job.stem_stride) for name in (TEACHER, STUDENT))
    return teacher.eval().to(job.device), student.to(job.device)


def warm_up(step: Callable[[Tensor, Tensor], Any], job: Job) -> None:
    """Take a few steps on noise, so that what only the first ones cost is timed for nobody."""
    for _ in range(WARM_UP_STEPS):
        step(*make_batch(job))


def make_batch(job: Job) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, H, W) float32, as if normalised, and labels (B,) int64, on the CPU."""
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randn(job.batch_size, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    return images, torch.randint(NUM_CLASSES, (job.batch_size,), generator=generator)


def _make_model(name: str, stem_stride: int | None) -> nn.Module:
    model: Any = timm.create_model(name, pretrained=False, num_classes=NUM_CLASSES)
    if stem_stride is not None:
        model.conv_stem.stride = (stem_stride, stem_stride)
    return model
