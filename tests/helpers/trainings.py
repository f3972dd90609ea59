"""Trainings of seconds that other processes make themselves, of noise with a bright third."""

import dataclasses
from types import SimpleNamespace

import torch

from distillation.base.params import Params
from distillation.data.rows import ResidentRows
from distillation.distilling.objective import build_objective
from distillation.models.creation import create_classifier
from distillation.training.batches import ImageSet, TrainSet
from distillation.training.labels import UNLABELED
from distillation.training.runtime import make_runtime
from distillation.training.setup import DeviceData, Setup
from distillation.training.supervised import LabelObjective
from distillation.training.values import Recipe, Training
from distillation.training.views import ViewSettings

NUM_CLASSES, SIZE = 3, 12
STUDENT = "test_efficientnet_gn"
"""Without batch normalisation, and without dropout where nothing asks for it."""


def make_set(num_samples: int, seed: int, *, device: torch.device) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % NUM_CLASSES
    images = torch.randint(0, 120, (num_samples, SIZE, SIZE, 3), generator=generator)
    for index, label in enumerate(labels.tolist()):
        images[index, 4 * label : 4 * label + 4] += 120
    rows = ResidentRows(images.to(torch.uint8).to(device))
    return ImageSet(images=rows, labels=labels.to(device))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """A teacher's stored logits, another for every sample and view."""

    is_streamed = False

    def take(self, samples, view_number):
        positions = torch.arange(NUM_CLASSES, device=samples.device.device)
        return {"logits": torch.sin(samples.device[:, None] * 3.0 + view_number + positions)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiny:
    """What opens tiny trainings; a value that goes to other processes."""

    method: str = "control"
    student: str = STUDENT
    num_samples: int = 48
    batch_size: int = 16
    epochs: int = 2
    mixup: float = 0.0
    cutmix: float = 0.0
    num_unlabeled: int = 0
    repeats_to: int = 0
    is_stored: bool = False
    drop_rate: float = 0.0
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    ema_decay: float = 0.0
    patience_epochs: int | None = None
    compiles: bool = False
    precision: str = "fp32"
    device: str = "cpu"
    spoil: object = None
    """A function of a module, called with the training before it is run."""

    def __call__(self, params: Params, workspace):
        runtime = make_runtime(
            device_name=workspace.device_name,
            compiles=str(self.compiles).lower(),
            precision=self.precision,
        )
        images = make_set(self.num_samples, seed=1, device=runtime.device)
        labels = images.labels.clone()
        labels[: self.num_unlabeled] = UNLABELED
        train = TrainSet(
            images=images.images,
            labels=labels,
            samples=torch.arange(self.num_samples),
            repeats_to=self.repeats_to,
            teacher_outputs=Outputs() if self.is_stored else None,
        )
        others = [make_set(30, seed=seed, device=runtime.device) for seed in (2, 3)]
        sets = DeviceData(train=train, validation=others[0], test=others[1])
        data = SimpleNamespace(fingerprint="x", class_names=("a", "b", "c"), source="noise")
        setup = Setup(params=params, data=data, sets=sets, runtime=runtime)
        return setup, lambda seed: self.make_training(setup, seed)

    def make_training(self, setup: Setup, seed: int) -> Training:
        train, device = setup.sets.train, setup.runtime.device
        student = make_model(self.student, seed).to(device)
        student.net.drop_rate = self.drop_rate
        objective = LabelObjective()
        if self.method != "control":
            objective = build_objective(
                self.method,
                setup.params,
                student=student,
                teacher=make_model("test_resnet", seed=9).to(device),
                train=train,
                image_size=SIZE,
                seed=seed,
            )
        training = Training(
            name="x",
            model=student,
            objective=objective,
            train=train,
            validation=setup.sets.validation,
            recipe=Recipe(
                epochs=self.epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                weight_decay=0.05,
                warmup_fraction=0.2,
                seed=seed,
                views=ViewSettings(
                    view_seed=5,
                    crop_padding=1,
                    horizontal_flip=True,
                    mixup=self.mixup,
                    cutmix=self.cutmix,
                ),
                num_views=4,
                optimizer=self.optimizer,
                ema_decay=self.ema_decay,
                patience_epochs=self.patience_epochs,
            ),
            settings={"batch_size": self.batch_size},
            couples_samples=getattr(objective, "couples_samples", False),
        )
        if self.spoil is not None:
            self.spoil(training)
        return training


def make_model(name: str, seed: int):
    return create_classifier(
        name, num_classes=NUM_CLASSES, image_size=SIZE, seed=seed, stem_stride=1
    )
