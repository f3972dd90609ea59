"""This project's own way to run an epoch: the library's calls, as its stages make them.

Storing the teacher's outputs is not part of the epoch: it is done once for all experiments and
all their variants. `targets_images_per_second` says how fast it went.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.settings import (
    ALPHA,
    CROP_PADDING,
    IMAGE_SIZE,
    LEARNING_RATE,
    NUM_CLASSES,
    SEED,
    STUDENT,
    TEACHER,
    TEMPERATURE,
    WARM_UP_STEPS,
)
from distillation.base.allocator import keep_freed_memory
from distillation.data.prepared import PreparedData, Split
from distillation.data.rows import Indices
from distillation.distilling.objective import DistillationObjective, Weights
from distillation.distilling.storing import store_teacher_outputs
from distillation.distilling.teacher_outputs import (
    StoredOutputs,
    fingerprint_teacher_outputs,
    load_teacher_outputs,
)
from distillation.losses.logits import KLLogitLoss
from distillation.models.classifier import Classifier
from distillation.models.creation import create_classifier
from distillation.training.denormals import set_threads
from distillation.training.loop import fit
from distillation.training.optimizer import make_optimizer
from distillation.training.runtime import Runtime, make_runtime
from distillation.training.setup import DeviceData, to_device
from distillation.training.values import EpochRecord, Recipe, Training
from distillation.training.views import ViewSettings

VIEWS = ViewSettings(view_seed=SEED, crop_padding=CROP_PADDING, horizontal_flip=True)


def measure(
    *,
    stem_stride: int | None,
    num_images: int,
    batch_size: int,
    cached: bool,
    epochs: int = 1,
    precision: str = "auto",
    compiles: str = "auto",
    optimizer: str = "adamw",
) -> dict[str, Any]:
    """Run epochs of experiment 1 after a short one that warms up; the figures are the last one's.

    Args:
        stem_stride: of both models' first convolution; None for the architecture's own.
        num_images: images of the epoch.
        batch_size: images per step.
        cached: whether the teacher's outputs are looked up, or the teacher runs in every step.
        epochs: how many to run; where steps are compiled, the first is not yet what others take.
        precision: as in params.yaml.
        compiles: `compile` in params.yaml.
        optimizer: its name in timm. AdamW is what other systems are measured with.
    """
    device_name = os.environ.get("DISTILLATION_DEVICE", "auto")
    runtime = _start(precision=precision, compiles=compiles, device_name=device_name)
    data = make_data(num_images)
    sets = to_device(data, runtime.device)
    teacher, student = (make_model(name, stem_stride, runtime) for name in (TEACHER, STUDENT))
    objective = make_objective(teacher)
    records: list[EpochRecord] = []
    seconds_of_storing, stored = 0.0, None
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        if cached:
            start = time.perf_counter()
            stored = _store_outputs(teacher, sets, data, runtime, Path(temporary) / "targets")
            seconds_of_storing = time.perf_counter() - start
        warm_up = torch.arange(min(num_images, WARM_UP_STEPS * batch_size))
        outputs = None if stored is None else stored.select(objective.features)
        for samples in (warm_up, sets.train.samples):
            training = Training(
                name="benchmark",
                model=student,
                objective=objective,
                train=dataclasses.replace(sets.train, samples=samples, teacher_outputs=outputs),
                validation=sets.validation,
                recipe=make_recipe(batch_size, epochs=epochs, optimizer=optimizer),
            )
            fit(training, runtime=runtime, on_epoch=records.append)
    record = records[-1]
    result = {
        "images_per_second": record.images_per_second,
        "seconds": record.seconds,
        "epoch_seconds": [record.seconds for record in records[-epochs:]],
        "loss": record.terms["loss"],
        "num_threads": torch.get_num_threads(),
        "precision": runtime.precision,
        "compiles": runtime.compiles,
    }
    if cached:
        result["targets_images_per_second"] = num_images / seconds_of_storing
    if runtime.device.type == "cuda":
        result["peak_cuda_bytes"] = torch.cuda.max_memory_allocated()
    return result


def measure_limit(
    *,
    stem_stride: int | None,
    num_images: int,
    batch_size: int,
    device_name: str,
    precision: str = "auto",
    compiles: str = "auto",
) -> dict[str, Any]:
    """Take the steps of an epoch on one fixed batch: no data, no views, no look-up, no sums."""
    runtime = _start(precision=precision, compiles=compiles, device_name=device_name)
    student = make_model(STUDENT, stem_stride, runtime).train()
    objective = make_objective(make_model(TEACHER, stem_stride, runtime))
    sets = to_device(make_data(batch_size), runtime.device)
    everything = torch.arange(batch_size)
    images = sets.train.images.take(Indices(everything, everything.to(runtime.device)))
    images = images.permute(0, 3, 1, 2)
    outputs = {"logits": torch.randn(batch_size, NUM_CLASSES, device=runtime.device)}
    optimizer = make_optimizer([student], learning_rate=LEARNING_RATE, weight_decay=0.0)
    compute_terms = runtime.compile(
        lambda images, labels, outputs: objective(student, images, labels, outputs)
    )

    def steps(number: int) -> float:
        for _ in range(number):
            with runtime.autocast():
                terms = compute_terms(images, sets.train.labels, outputs)
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
        return float(terms["loss"])

    steps(WARM_UP_STEPS)
    start = time.perf_counter()
    num_steps = max(1, num_images // batch_size)
    loss = steps(num_steps)
    seconds = time.perf_counter() - start
    return {
        "images_per_second": num_steps * batch_size / seconds,
        "seconds": seconds,
        "loss": loss,
        "num_threads": torch.get_num_threads(),
    }


def _start(*, precision: str, compiles: str, device_name: str) -> Runtime:
    keep_freed_memory()
    set_threads(torch.get_num_threads())
    return make_runtime(precision=precision, compiles=compiles, device_name=device_name)


def make_model(name: str, stem_stride: int | None, runtime: Runtime) -> Classifier:
    """Create a model with random weights on the runtime's device."""
    return create_classifier(
        name,
        num_classes=NUM_CLASSES,
        image_size=IMAGE_SIZE,
        seed=SEED,
        stem_stride=stem_stride,
    ).to(runtime.device)


def make_objective(teacher: Classifier) -> DistillationObjective:
    """Return experiment 1's objective."""
    return DistillationObjective(
        teacher,
        logit_loss=KLLogitLoss(temperature=TEMPERATURE),
        weights=Weights(label=1.0 - ALPHA, logit=ALPHA, feature=0.0),
    )


def make_recipe(batch_size: int, *, epochs: int = 1, optimizer: str = "adamw") -> Recipe:
    """Return the recipe of one epoch, or of several."""
    return Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,
        warmup_fraction=0.0,
        seed=SEED,
        views=VIEWS,
        num_views=1,
        optimizer=optimizer,
    )


def make_data(num_images: int) -> PreparedData:
    """Make random images and labels; validation and test are as small as can be."""
    generator = np.random.default_rng(SEED)

    def make_split(size: int) -> Split:
        shape = (size, IMAGE_SIZE, IMAGE_SIZE, 3)
        return Split(
            images=generator.integers(0, 256, shape, dtype=np.uint8),
            labels=generator.integers(0, NUM_CLASSES, size),
        )

    return PreparedData(
        train=make_split(num_images),
        validation=make_split(10),
        test=make_split(10),
        labeled=np.arange(num_images),
        class_names=tuple(str(label) for label in range(NUM_CLASSES)),
        source="random images",
        view_seed=SEED,
        provenance={},
    )


def _store_outputs(
    teacher: Classifier, sets: DeviceData, data: PreparedData, runtime: Runtime, directory: Path
) -> StoredOutputs:
    shared: dict[str, Any] = {"data": data, "views": VIEWS, "num_views": 1, "runtime": runtime}
    store_teacher_outputs(teacher, sets.train, directory, cache_gb=0.0, **shared)
    return load_teacher_outputs(
        directory,
        fingerprint=fingerprint_teacher_outputs(teacher, **shared),
        train=sets.train,
        device=runtime.device,
    )
