"""The section `views`: what richer views cost a student's epoch.

`python -m benchmarks.views --stem 1` measures one stem in a process of its own: epochs of
experiment 1 with stored outputs, every kind of view in turns. Its last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

import numpy as np
import torch

from benchmarks.ours import VIEWS, make_model, make_objective, make_recipe
from benchmarks.processes import run_json
from benchmarks.settings import (
    IMAGE_SIZE,
    NUM_CLASSES,
    SEED,
    STEMS,
    STUDENT,
    TEACHER,
    WARM_UP_STEPS,
    WAYS,
    Settings,
)
from distillation.base.allocator import keep_freed_memory
from distillation.data.rows import ResidentRows
from distillation.distilling.cache_plan import plan_cache
from distillation.distilling.teacher_outputs import StoredOutputs
from distillation.models.classifier import Classifier
from distillation.training.batches import ImageSet, TrainSet
from distillation.training.cropping import ResizedCrop
from distillation.training.loop import fit
from distillation.training.runtime import CPU
from distillation.training.values import EpochRecord, Training
from distillation.training.views import ViewSettings

NOTES = (
    "Experiment 1 on random images, the teacher's outputs random and stored; a round trains one "
    "epoch with every kind of view, on the CPU.",
    "The speed is that of the fastest round, the ratio that to the first line of the stem.",
)
_CROP = ResizedCrop(
    size=IMAGE_SIZE,
    min_area=0.35,
    max_area=1.0,
    min_aspect=0.75,
    max_aspect=4 / 3,
    interpolation="bilinear",
)
_LARGER = 40
_MIN_STEPS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of view."""

    title: str
    views: ViewSettings
    side: int = IMAGE_SIZE
    """Height and width of the images it is made of."""


def _with(**changes: Any) -> ViewSettings:
    return dataclasses.replace(VIEWS, **changes)


_BICUBIC = dataclasses.replace(_CROP, interpolation="bicubic")
KINDS = {
    "crop": Kind(title="shift and flip", views=VIEWS),
    "mixup": Kind(title="with mixup", views=_with(mixup=0.2)),
    "cutmix": Kind(title="with CutMix", views=_with(cutmix=1.0)),
    "mixes": Kind(title="with either, by the hash", views=_with(mixup=0.2, cutmix=1.0)),
    "jitter": Kind(title="with colour jitter", views=_with(color_jitter=0.4)),
    "bilinear": Kind(title="resized crop, bilinear", views=_with(resized_crop=_CROP)),
    "bicubic": Kind(title="resized crop, bicubic", views=_with(resized_crop=_BICUBIC)),
    "larger": Kind(
        title=f"resized crop, bicubic, of {_LARGER} pixels",
        views=_with(resized_crop=_BICUBIC),
        side=_LARGER,
    ),
    "everything": Kind(
        title="resized crop, bicubic, with all of it",
        views=_with(resized_crop=_BICUBIC, color_jitter=0.4, mixup=0.2, cutmix=1.0),
    ),
}


def measure_views(settings: Settings) -> dict[str, Any]:
    """Measure every stem in a process of its own."""
    rows, failures = [], []
    for stem in settings.stems:
        steps = WAYS["ours_cached"].speeds["cpu", stem] * settings.seconds / 4
        num_steps = max(_MIN_STEPS, round(steps / settings.batch_size))
        options = ["--stem", stem, "--batch", str(settings.batch_size)]
        options += ["--steps", str(num_steps), "--rounds", str(settings.rounds)]
        result = run_json("benchmarks.views", *options)
        if "error" in result:
            failures.append(f"{stem}: {result['error']}")
        rows += result.get("rows", [])
    ratios = {
        f"{row['views']}_vs_crop_{'stock' if row['stem'] == 'stock' else 'stem1'}": row["ratio"]
        for row in rows
        if row["views"] in ("mixup", "bilinear", "bicubic")
    }
    return {"notes": list(NOTES), "rows": rows, "ratios": ratios, "failures": failures}


def measure(stem: str, *, num_steps: int, batch_size: int, rounds: int) -> list[dict[str, Any]]:
    """Train epochs with every kind of view in turns; return one row per kind."""
    teacher, student = (make_model(name, STEMS[stem], CPU) for name in (TEACHER, STUDENT))
    speeds: dict[str, list[float]] = {name: [] for name in KINDS}
    sets = {kind.side: _make_set(num_steps * batch_size, kind.side) for kind in KINDS.values()}
    for number in range(rounds + 1):  # the first warms up
        for name in KINDS if number % 2 == 0 else reversed(KINDS):
            train = sets[KINDS[name].side]
            if number == 0:
                warm_up = train.samples[: WARM_UP_STEPS * batch_size]
                train = dataclasses.replace(train, samples=warm_up)
            record = _run_epoch(student, teacher, train, KINDS[name].views, batch_size)
            speeds[name] += [record.images_per_second] if number else []
    best = {name: max(of_rounds) for name, of_rounds in speeds.items()}
    return [
        {
            **{"stem": stem, "views": name, "title": kind.title},
            "images_per_second": round(best[name], 1),
            "ratio": round(best[name] / best["crop"], 3),
            "rounds": [round(speed, 1) for speed in speeds[name]],
        }
        for name, kind in KINDS.items()
    ]


def _run_epoch(
    student: Classifier,
    teacher: Classifier,
    train: TrainSet,
    views: ViewSettings,
    batch_size: int,
) -> EpochRecord:
    training = Training(
        name="benchmark",
        model=student,
        objective=make_objective(teacher),
        train=train,
        validation=ImageSet(
            images=ResidentRows(torch.zeros(10, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)),
            labels=torch.arange(10),
        ),
        recipe=dataclasses.replace(make_recipe(batch_size), views=views),
    )
    return fit(training, runtime=CPU).history[-1]


def _make_set(num_images: int, side: int) -> TrainSet:
    generator = np.random.default_rng(SEED)
    images = generator.integers(0, 256, (num_images, side, side, 3), dtype=np.uint8)
    logits = torch.from_numpy(generator.standard_normal((num_images, NUM_CLASSES)).astype("f2"))
    plan = plan_cache(
        num_views=1,
        num_samples=num_images,
        num_classes=NUM_CLASSES,
        feature_shape=(1, 1, 1),
        cache_gb=0.0,
    )
    outputs = StoredOutputs(
        plan,
        row_of_sample=torch.arange(num_images),
        logits=ResidentRows(logits),
        features=None,
        device=CPU.device,
        fingerprint={},
    )
    return TrainSet(
        images=ResidentRows(torch.from_numpy(images)),
        labels=torch.from_numpy(generator.integers(0, NUM_CLASSES, num_images)),
        samples=torch.arange(num_images),
        teacher_outputs=outputs,
    )


def main() -> None:
    """Measure and print the result on one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.views", allow_abbrev=False)
    parser.add_argument("--stem", choices=STEMS, default="1")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    keep_freed_memory()
    rows = measure(args.stem, num_steps=args.steps, batch_size=args.batch, rounds=args.rounds)
    print(json.dumps({"rows": rows, "num_threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
