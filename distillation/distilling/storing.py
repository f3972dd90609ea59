"""Run the teacher once over every view the students will see, and store what it predicts.

Shapes: V views, M samples, B of them in a batch, K classes, C channels and h × w size of the
teacher's last feature map.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from distillation.base.checksums import hash_code, hash_file, seal
from distillation.base.files import new_directory
from distillation.base.limits import check_space
from distillation.base.progress import Progress
from distillation.data.prepared import PreparedData, save_array
from distillation.distilling.cache_plan import CachePlan, describe_plan, plan_cache
from distillation.distilling.teacher_outputs import (
    FEATURES_FILE,
    LOGITS_FILE,
    META_FILE,
    SAMPLES_FILE,
    TeacherOutputsError,
    fingerprint_teacher_outputs,
    load_teacher_outputs,
)
from distillation.models.classifier import Classifier, Outputs, freeze
from distillation.training.batches import TrainSet, iterate_batches
from distillation.training.costs import write_cost
from distillation.training.evaluation import batch_without_gradients
from distillation.training.runtime import Runtime
from distillation.training.views import ViewSettings

logger = logging.getLogger(__name__)

_BATCH_SIZE = 250


def store_teacher_outputs(
    teacher: Classifier,
    train: TrainSet,
    directory: Path,
    *,
    data: PreparedData,
    views: ViewSettings,
    num_views: int,
    cache_gb: float,
    runtime: Runtime,
    cost: Path | None = None,
) -> CachePlan:
    """Run the frozen teacher over all views of the samples trained on, and store its outputs.

    Whole outputs that are there already, of this teacher, data and views, stay as they are if the
    same code and torch made them.

    Args:
        teacher: the teacher, on the runtime's device; it is frozen.
        train: the data set and its samples.
        directory: where to write; it appears complete or not at all.
        data: the prepared set `train` was made of.
        views: what a view may do to an image.
        num_views: V.
        cache_gb: space for the outputs, in 10⁹ bytes.
        runtime: device and precision.
        cost: where to write what it cost; outputs of which that is not known do not stay.
    """
    freeze(teacher)
    plan = plan_cache(
        num_views=num_views,
        num_samples=len(train.samples),
        num_classes=teacher.num_classes,
        feature_shape=teacher.feature_shape(data.image_size),
        cache_gb=cache_gb,
    )
    fingerprint = fingerprint_teacher_outputs(
        teacher, data=data, views=views, num_views=num_views, runtime=runtime
    )
    is_known = cost is None or cost.exists()
    if is_known and _is_stored(
        directory, plan, fingerprint=fingerprint, train=train, runtime=runtime
    ):
        logger.info("teacher_targets: %s is kept: it holds this teacher's outputs", directory)
        return plan
    logger.info("%s", describe_plan(plan, cache_gb=cache_gb))
    if cost is not None:
        cost.unlink(missing_ok=True)
    before = runtime.compute_seconds()
    check_space(directory, plan.num_bytes, way_out="use fewer num_views or less teacher_cache_gb")
    with new_directory(directory) as new:
        save_array(new / SAMPLES_FILE, train.samples.numpy())
        progress = Progress(num_views * plan.num_samples, unit="image")
        with _OutputFiles(new, plan) as files, progress:
            for view in range(num_views):
                progress.describe(f"teacher_targets view {view + 1}/{num_views}")
                start = time.perf_counter()
                for outputs in _run_teacher(teacher, train, view, views=views, runtime=runtime):
                    files.append(outputs)
                    progress.advance(len(outputs.logits))
                progress.pause()
                seconds = time.perf_counter() - start
                logger.info(
                    "teacher_targets view %d/%d: %d images in %.1f s, %.0f images/s",
                    view + 1,
                    num_views,
                    plan.num_samples,
                    seconds,
                    plan.num_samples / seconds,
                )
        meta = {
            "plan": dataclasses.asdict(plan),
            "fingerprint": fingerprint,
            "made_by": _describe_maker(),
            "files": {SAMPLES_FILE: hash_file(new / SAMPLES_FILE), **files.checksums()},
        }
        text = json.dumps(seal(meta), indent=2) + "\n"
        (new / META_FILE).write_text(text, encoding="utf-8")
    if cost is not None:
        write_cost(cost, [runtime.compute_seconds() - before], unit=runtime.compute_unit)
    return plan


def _is_stored(
    directory: Path,
    plan: CachePlan,
    *,
    fingerprint: dict[str, Any],
    train: TrainSet,
    runtime: Runtime,
) -> bool:
    try:
        stored = load_teacher_outputs(
            directory, fingerprint=fingerprint, train=train, device=runtime.device
        )
    except TeacherOutputsError:
        return False
    meta = json.loads((directory / META_FILE).read_text(encoding="utf-8"))
    return stored.plan == plan and meta.get("made_by") == _describe_maker()


def _describe_maker() -> dict[str, str]:
    """Return what makes outputs besides their inputs: libraries, code of views and models."""
    code = hash_code("data", "distilling", "models", "training")
    return {"torch": torch.__version__, "timm": timm.__version__, "code": code}


def _run_teacher(
    teacher: Classifier, train: TrainSet, view: int, *, views: ViewSettings, runtime: Runtime
) -> Iterator[Outputs]:
    """Yield the teacher's outputs for one view of all samples, a batch at a time."""
    size = batch_without_gradients(_BATCH_SIZE, train.images.row_shape[0])
    for batch in iterate_batches(train, train.samples, size, view, views=views):
        with torch.inference_mode(), runtime.autocast():
            outputs = teacher.outputs(batch.images)
        yield outputs


class _OutputFiles:
    """The `.npy` files of the outputs, written from front to back, a batch at a time."""

    def __init__(self, directory: Path, plan: CachePlan) -> None:
        self.plan = plan
        rows = plan.num_views * plan.num_samples
        shapes = {LOGITS_FILE: (rows, plan.num_classes)}
        if plan.features != "none":
            shapes[FEATURES_FILE] = (rows, *plan.stored_shape)  # type: ignore[assignment]
        self._files = {name: (directory / name).open("wb") for name in shapes}
        self._digests = {name: hashlib.sha256() for name in shapes}
        for name, shape in shapes.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f2", "fortran_order": False, "shape": shape}
            )
            self._append(name, header.getbuffer())

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of each file as far as it was written."""
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def append(self, outputs: Outputs) -> None:
        """Write the outputs for the next samples."""
        self._write(LOGITS_FILE, outputs.logits)
        features = outputs.features
        if features is None or self.plan.features == "none":
            return
        if features.ndim == 2:
            features = features[:, :, None, None]
        elif self.plan.features == "pooled":
            features = features.float().mean(dim=(2, 3), keepdim=True)
        self._write(FEATURES_FILE, features.permute(0, 2, 3, 1))

    def _write(self, name: str, values: Tensor) -> None:
        halves = values.half().cpu()
        if not bool(torch.isfinite(halves).all()):
            raise TeacherOutputsError(
                f"{name}: the teacher's outputs are not finite, or beyond the range of "
                "float16 (65,504); allowed: a teacher with outputs of ordinary size"
            )
        self._append(name, halves.contiguous().numpy().data)

    def _append(self, name: str, content: memoryview) -> None:
        self._files[name].write(content)
        self._digests[name].update(content)

    def __enter__(self) -> _OutputFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()
