"""The section `growth`: what an epoch costs in time and memory as the data set grows.

`python -m benchmarks.growth --samples 45000 --trained 45000` measures one size in its own process:
a prepared set of random images and random stored outputs in files, one epoch of experiment 3 at the
stock stem over some of its samples, drawn from the whole file.
`python -m benchmarks.growth --stages 1000000` takes so many images through all stages of a clone,
and prints the most private memory that one process of each had.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from benchmarks.hardware import ROOT
from benchmarks.ours import VIEWS, make_data, make_recipe
from benchmarks.processes import peak_memory_bytes, run_json, run_watched
from benchmarks.settings import IMAGE_SIZE, NUM_CLASSES, SEED, STUDENT, TEACHER, Settings
from distillation.base.allocator import keep_freed_memory
from distillation.base.checksums import CHECKSUM_KEY, hash_file, seal
from distillation.base.params import load_params
from distillation.data.prepared import PreparedData, load_prepared, save_prepared
from distillation.data.rows import StreamedRows
from distillation.distilling.cache_plan import CachePlan, plan_cache
from distillation.distilling.objective import build_objective
from distillation.distilling.teacher_outputs import (
    StoredOutputs,
    fingerprint_teacher_outputs,
    load_teacher_outputs,
)
from distillation.models.classifier import Classifier
from distillation.models.creation import create_classifier
from distillation.training.batches import TrainSet
from distillation.training.loop import fit
from distillation.training.runtime import CPU
from distillation.training.setup import to_device
from distillation.training.values import EpochRecord, Training

SIZES = (5_000, 10_000, 20_000, 45_000)
LARGE = 1_000_000
LARGE_TRAINED = 20_000
NOTES = (
    "Experiment 3 at the stock stem: images and the teacher's outputs are read from files, random "
    "in content; one epoch after a warm-up, in a process of its own.",
    "Above 1 GiB a file is streamed: its rows are read as they are needed.",
    f"The last line trains on {LARGE_TRAINED:,} samples drawn from a file of {LARGE:,} images.",
)
STAGES = (
    *("prepare_data", "train_teacher", "train_control", "teacher_targets"),
    *(f"distill --method exp{number}" for number in (1, 2, 3)),
    *("eval_baseline", "export_student", "summarize"),
)
_STAGE_PARAMS = {
    **{"teacher": "test_vit", "student": "test_vit", "num_views": 1, "seeds": [0]},
    **{"teacher_stem_stride": None, "student_stem_stride": None, "labeled_fraction": 0.1},
    **{"teacher_epochs": 1, "epochs": 1, "teacher_batch_size": 1000, "batch_size": 1000},
}
_STAGE_CLASSES = 100
_CHUNK = 2_000  # samples written at a time: making the files must not set the peak


def measure_growth(settings: Settings) -> dict[str, Any]:
    """Measure one epoch for every size."""
    sizes = [(size, size) for size in (SIZES[:2] if settings.quick else SIZES)]
    rows, failures = [], []
    for samples, trained in [*sizes, *([] if settings.quick else [(LARGE, LARGE_TRAINED)])]:
        options = ("--samples", str(samples), "--trained", str(trained))
        result = run_json("benchmarks.growth", *options, "--batch", str(settings.batch_size))
        rows.append({"samples": samples, "trained": trained, **result})
        if "error" in result:
            failures.append(f"{samples} samples: {result['error']}")
    return {"notes": list(NOTES), "rows": rows, "failures": failures}


def measure(*, samples: int, trained: int, batch_size: int) -> dict[str, Any]:
    """Make the files, train an epoch, say what it took."""
    keep_freed_memory()
    shared: dict[str, Any] = {"num_classes": NUM_CLASSES, "image_size": IMAGE_SIZE, "seed": SEED}
    student, teacher = (create_classifier(name, **shared) for name in (STUDENT, TEACHER))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        data = _write_data(Path(temporary) / "prepared", samples)
        sets = to_device(data, CPU.device)
        chosen = np.sort(np.random.default_rng(SEED).permutation(samples)[:trained])
        train = dataclasses.replace(sets.train, samples=torch.from_numpy(chosen))
        stored = _write_outputs(Path(temporary) / "targets", train, data, teacher)
        objective = build_objective(
            "exp3",
            load_params(),
            student=student,
            teacher=teacher,
            train=train,
            seed=SEED,
            image_size=IMAGE_SIZE,
            teacher_shape=stored.plan.feature_shape,
        )
        records: list[EpochRecord] = []
        for part in (train.samples[: 2 * batch_size], train.samples):
            training = Training(
                name="growth",
                model=student,
                objective=objective,
                train=dataclasses.replace(
                    train, samples=part, teacher_outputs=stored.select(objective.features)
                ),
                validation=sets.validation,
                recipe=make_recipe(batch_size),
            )
            fit(training, runtime=CPU, on_epoch=records.append)
    return {
        "seconds": round(records[-1].seconds, 2),
        "images_per_second": round(records[-1].images_per_second, 1),
        "images_bytes": samples * IMAGE_SIZE**2 * 3,
        "targets_bytes": stored.plan.num_bytes,
        "images_are_streamed": isinstance(sets.train.images, StreamedRows),
        "targets_are_streamed": stored.is_streamed,
        "peak_rss_bytes": peak_memory_bytes(),
    }


def measure_stages(num_images: int) -> dict[str, int]:
    """Take images of 32 pixels in 100 classes through all stages; return peak bytes by stage."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        clone, archive = Path(temporary) / "clone", Path(temporary) / "images.tar"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        write_archive(archive, num_images)
        path = clone / "params.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        values |= {**_STAGE_PARAMS, "dataset": str(archive)}
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return {stage: run_watched(f"stages.{stage}".split(), cwd=clone) for stage in STAGES}


def write_archive(path: Path, num_images: int) -> None:
    """Write a tar archive of JPEG pictures, all different, by class."""
    generator = np.random.default_rng(SEED)
    with tarfile.open(path, "w") as archive:
        for number in range(num_images):
            coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            content = io.BytesIO()
            size = (IMAGE_SIZE, IMAGE_SIZE)
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(content, "JPEG")
            place = number * _STAGE_CLASSES // num_images
            member = tarfile.TarInfo(f"class{place:02}/image_{number:07}.jpg")
            member.size = content.tell()
            content.seek(0)
            archive.addfile(member, content)
            archive.members = []  # type: ignore[attr-defined]


def _write_data(directory: Path, samples: int) -> PreparedData:
    """Write a prepared set piece by piece: it is never in memory whole."""
    save_prepared(make_data(10), directory)
    generator = np.random.default_rng(SEED)
    shape = (samples, IMAGE_SIZE, IMAGE_SIZE, 3)
    with (directory / "train_images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, samples, _CHUNK):
            size = min(_CHUNK, samples - start)
            file.write(generator.bytes(size * IMAGE_SIZE**2 * 3))
    np.save(directory / "train_labels.npy", generator.integers(0, NUM_CLASSES, samples))
    np.save(directory / "labeled.npy", np.arange(samples))
    meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
    del meta[CHECKSUM_KEY]
    _write_meta(directory, meta)
    return load_prepared(directory)


def _write_outputs(
    directory: Path, train: TrainSet, data: PreparedData, teacher: Classifier
) -> StoredOutputs:
    """Write random outputs in place of a teacher's, in the same files."""
    plan: CachePlan = plan_cache(
        num_views=1,
        num_samples=len(train.samples),
        num_classes=NUM_CLASSES,
        feature_shape=teacher.feature_shape(IMAGE_SIZE),
        cache_gb=1e3,
    )
    fingerprint = fingerprint_teacher_outputs(
        teacher, data=data, views=VIEWS, num_views=1, runtime=CPU
    )
    generator = np.random.default_rng(SEED)
    directory.mkdir()
    np.save(directory / "samples.npy", train.samples.numpy())
    for name, row in (("logits", (NUM_CLASSES,)), ("features", plan.stored_shape)):
        with (directory / f"{name}.npy").open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (len(train.samples), *row)}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(train.samples), _CHUNK):
                size = min(_CHUNK, len(train.samples) - start)
                values = generator.standard_normal((size, *row), dtype=np.float32)
                file.write(values.astype(np.float16).data)
    _write_meta(directory, {"plan": dataclasses.asdict(plan), "fingerprint": fingerprint})
    return load_teacher_outputs(directory, fingerprint=fingerprint, train=train, device=CPU.device)


def _write_meta(directory: Path, meta: dict[str, Any]) -> None:
    """Write what a folder of arrays has besides them, with the checksums its readers compare."""
    files = {path.name: hash_file(path) for path in sorted(directory.glob("*.npy"))}
    text = json.dumps(seal({**meta, "files": files}))
    (directory / "meta.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", allow_abbrev=False)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--trained", type=int)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--stages", type=int, metavar="IMAGES")
    args = parser.parse_args()
    if args.stages:
        print(json.dumps(measure_stages(args.stages)), flush=True)
    elif args.samples and args.trained:
        figures = measure(samples=args.samples, trained=args.trained, batch_size=args.batch)
        print(json.dumps(figures), flush=True)
    else:
        parser.error("give --samples and --trained, or --stages")
