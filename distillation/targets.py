"""The teacher's outputs for every view the students see, computed once and stored.

A view is a pure function of the data's view seed, the sample and the view's number, so what the
teacher says of it can be looked up later by (view, sample): logits always, the last feature map
or its mean over the positions while they fit in the space given. What is not stored is computed
while the student trains, with the same result but for the rounding to float16.

Shapes: V views, M samples, B of them in a batch, K classes, C channels and h × w size of the
teacher's last feature map.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillation.data.packed import PackedData
from distillation.data.rows import Indices, Rows, make_rows
from distillation.errors import DistillationError
from distillation.files import new_directory
from distillation.models import Classifier, Outputs, fingerprint_model, freeze
from distillation.runtime import Runtime
from distillation.training.batches import TrainSet, iterate_batches
from distillation.training.progress import StepProgress
from distillation.training.views import ViewSettings

logger = logging.getLogger(__name__)

_META_FILE, _LOGITS_FILE, _FEATURES_FILE = "meta.json", "logits.npy", "features.npy"
_BYTES = 2  # of a float16
_BATCH_SIZE = 250


class TargetsError(DistillationError):
    """Stored outputs of a teacher are missing, damaged, or not those of this teacher."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachePlan:
    """What of the teacher's outputs is stored; it follows from shapes and parameters alone."""

    num_views: int
    num_samples: int
    num_classes: int
    feature_shape: tuple[int, int, int]
    """(C, h, w) of the teacher's last feature map."""
    features: str
    """`map`: all of it; `pooled`: its mean over the positions; `none`: nothing."""

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Give the shape (h, w, C) of one stored feature map."""
        channels, height, width = self.feature_shape
        return (height, width, channels) if self.features == "map" else (1, 1, channels)

    @property
    def num_bytes(self) -> int:
        """Give the size of everything stored."""
        features = 0 if self.features == "none" else int(np.prod(self.stored_shape))
        return self.num_views * self.num_samples * (self.num_classes + features) * _BYTES

    def summary(self) -> dict[str, Any]:
        """Give what a metrics file says of it; the size in bytes."""
        features = {"map": ["feature maps"], "pooled": ["pooled features"], "none": []}
        return {
            "num_views": self.num_views,
            "num_samples": self.num_samples,
            "feature_shape": list(self.feature_shape),
            "stored": ["logits", *features[self.features]],
            "num_bytes": self.num_bytes,
        }


def plan_cache(
    *,
    num_views: int,
    num_samples: int,
    num_classes: int,
    feature_shape: tuple[int, int, int],
    cache_gb: float,
) -> CachePlan:
    """Decide what to store: the whole map if it fits in `cache_gb`, else its mean, else neither.

    Logits are always stored.
    """
    for features in ("map", "pooled", "none"):
        plan = CachePlan(
            num_views=num_views,
            num_samples=num_samples,
            num_classes=num_classes,
            feature_shape=feature_shape,
            features=features,
        )
        if plan.num_bytes <= round(cache_gb * 1e9):
            break
    return plan


class TeacherTargets:
    """Stored outputs of a teacher, by sample and view."""

    def __init__(
        self,
        plan: CachePlan,
        *,
        row_of_sample: Tensor,
        logits: Rows,
        features: Rows | None,
        device: torch.device,
    ) -> None:
        self.plan = plan
        self._row_of_sample = row_of_sample
        self._row_on_device = row_of_sample.to(device)
        self._logits = logits
        self._features = features

    @property
    def is_streamed(self) -> bool:
        """Whether taking them reads a file."""
        return self._logits.is_streamed or bool(self._features and self._features.is_streamed)

    def has_features(self, kind: str | None) -> bool:
        """Tell whether features of a kind can be taken; of no kind, always."""
        return kind is None or self.plan.features in (kind, "map")

    def select(self, kind: str | None) -> TeacherTargets:
        """Give the same targets with features of a kind alone, and without where there are none."""
        return TeacherTargets(
            self.plan,
            row_of_sample=self._row_of_sample,
            logits=self._logits,
            features=self._features if kind is not None and self.has_features(kind) else None,
            device=self._row_on_device.device,
        )

    def take(self, samples: Indices, view_number: int) -> dict[str, Tensor]:
        """Give `logits` (B, K) and, where stored, `features` (B, C, h, w), in float32.

        Raises:
            IndexError: the view, or a sample, is none of those stored.
        """
        first = view_number * self.plan.num_samples
        host = self._row_of_sample[samples.host]
        if int(host.min()) < 0 or not 0 <= view_number < self.plan.num_views:
            raise IndexError(f"view {view_number} of some of these samples is not stored")
        rows = Indices(
            host + first,
            self._row_on_device.index_select(0, samples.device) + first,
        )
        taken = {"logits": self._logits.take(rows).float()}
        if self._features is not None:
            taken["features"] = self._features.take(rows).permute(0, 3, 1, 2).float()
        return taken


def compute_targets(
    teacher: Classifier,
    train: TrainSet,
    directory: Path,
    *,
    data: PackedData,
    views: ViewSettings,
    num_views: int,
    cache_gb: float,
    runtime: Runtime,
) -> CachePlan:
    """Run the frozen teacher over all views of the samples trained on, and store what it says.

    Args:
        teacher: the teacher, on the runtime's device; it is frozen.
        train: the data set and its samples.
        directory: where to write; it appears complete or not at all.
        data: the packed set `train` was made of.
        views: what a view may do to an image.
        num_views: V.
        cache_gb: space for the outputs, in 10⁹ bytes.
        runtime: device and precision.
    """
    freeze(teacher)
    plan = plan_cache(
        num_views=num_views,
        num_samples=len(train.samples),
        num_classes=teacher.num_classes,
        feature_shape=teacher.feature_shape(data.image_size),
        cache_gb=cache_gb,
    )
    logger.info("%s", describe_plan(plan, cache_gb=cache_gb))
    with new_directory(directory) as new:
        np.save(new / "samples.npy", train.samples.numpy())
        with _OutputFiles(new, plan) as files:
            for view in range(num_views):
                start = time.perf_counter()
                _store_view(teacher, train, view, files=files, views=views, runtime=runtime)
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
            "fingerprint": fingerprint_targets(
                teacher, data=data, views=views, num_views=num_views, runtime=runtime
            ),
        }
        (new / _META_FILE).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return plan


def load_targets(
    directory: Path, *, fingerprint: dict[str, Any], train: TrainSet, device: torch.device
) -> TeacherTargets:
    """Open what `compute_targets` stored; large files are read when they are needed.

    Args:
        directory: where it lies.
        fingerprint: of the teacher, data, views and precision at hand.
        train: the data set and the samples whose outputs are wanted.
        device: where the outputs are wanted.

    Raises:
        TargetsError: files are missing or damaged, or belong to something else; the message
            says what differs.
    """
    try:
        meta = json.loads((directory / _META_FILE).read_text(encoding="utf-8"))
        stored = dict(meta["fingerprint"])
        plan = CachePlan(**{**meta["plan"], "feature_shape": tuple(meta["plan"]["feature_shape"])})
        different = [
            f"{key.replace('_', ' ')} (stored {_short(stored.get(key))}, now {_short(value)})"
            for key, value in fingerprint.items()
            if stored.get(key) != value
        ]
        if different:
            raise TargetsError(
                f"{directory}: these outputs were computed for something else; different: "
                f"{', '.join(different)}; run teacher_targets again"
            )
        samples = torch.from_numpy(np.load(directory / "samples.npy"))
        rows = plan.num_views * plan.num_samples
        logits = _open_rows(directory / _LOGITS_FILE, (rows, plan.num_classes))
        features = None
        if plan.features != "none":
            features = _open_rows(directory / _FEATURES_FILE, (rows, *plan.stored_shape))
        row_of_sample = torch.full((len(train),), -1)
        row_of_sample[samples] = torch.arange(plan.num_samples)
    except TargetsError:
        raise
    # Whatever damaged files make the readers stumble over, the answer for the user is the same.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TargetsError(
            f"{directory}: no complete outputs of a teacher ({reason}); run teacher_targets again"
        ) from error
    missing = int((row_of_sample[train.samples] < 0).sum())
    if missing or int((row_of_sample >= 0).sum()) != plan.num_samples:
        raise TargetsError(
            f"{directory}: the outputs of {missing} of {len(train.samples)} samples are missing, "
            "or samples.npy is damaged; run teacher_targets again"
        )
    return TeacherTargets(
        plan,
        row_of_sample=row_of_sample,
        logits=make_rows(logits, device),
        features=None if features is None else make_rows(features, device),
        device=device,
    )


def fingerprint_targets(
    teacher: Classifier,
    *,
    data: PackedData,
    views: ViewSettings,
    num_views: int,
    runtime: Runtime,
) -> dict[str, Any]:
    """Give what a teacher's outputs depend on, under names a message can use."""
    return {
        "teacher": teacher.name,
        "teacher_weights": fingerprint_model(teacher),
        "prepared_data": data.fingerprint,
        **dataclasses.asdict(views),
        "num_views": num_views,
        "precision": runtime.precision,
    }


def describe_plan(plan: CachePlan, *, cache_gb: float) -> str:
    """Say in a line what is stored and what will be computed live."""
    size = f"{plan.num_bytes / 1e9:.3f} GB of at most {cache_gb:g} GB (teacher_cache_gb)"
    what = {
        "map": "logits and feature maps are stored",
        "pooled": "logits and pooled features are stored, feature maps will be computed live",
        "none": "logits are stored, features will be computed live",
    }[plan.features]
    views = "1 view" if plan.num_views == 1 else f"{plan.num_views} views"
    return f"teacher_targets: {views} of {plan.num_samples} images: {what}; {size}"


def _open_rows(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    array = np.load(path, mmap_mode="r")
    if array.shape != shape or array.dtype != np.float16:
        raise ValueError(
            f"{path.name} holds {array.dtype} of shape {array.shape}, not float16 of {shape}"
        )
    if path.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not what its header says")
    return array


def _store_view(
    teacher: Classifier,
    train: TrainSet,
    view: int,
    *,
    files: _OutputFiles,
    views: ViewSettings,
    runtime: Runtime,
) -> None:
    """Run the teacher over one view of all samples."""
    num_views, num_samples = files.plan.num_views, files.plan.num_samples
    num_steps = -(-num_samples // _BATCH_SIZE)
    batches = iterate_batches(train, train.samples, _BATCH_SIZE, view, views=views)
    with StepProgress("teacher_targets", view + 1, num_views, num_steps) as progress:
        for batch in batches:
            with torch.inference_mode(), runtime.autocast():
                outputs = teacher.outputs(batch.images)
            files.append(outputs)
            progress.advance()


class _OutputFiles:
    """The `.npy` files of the outputs, written from front to back, a batch at a time."""

    def __init__(self, directory: Path, plan: CachePlan) -> None:
        self.plan = plan
        rows = plan.num_views * plan.num_samples
        shapes = {_LOGITS_FILE: (rows, plan.num_classes)}
        if plan.features != "none":
            shapes[_FEATURES_FILE] = (rows, *plan.stored_shape)  # type: ignore[assignment]
        self._files = {name: (directory / name).open("wb") for name in shapes}
        for name, shape in shapes.items():
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._files[name], header)

    def append(self, outputs: Outputs) -> None:
        """Write the outputs for the next samples."""
        self._write(_LOGITS_FILE, outputs.logits)
        features = outputs.features
        if self.plan.features == "pooled":
            features = features.float().mean(dim=(2, 3), keepdim=True)
        if self.plan.features != "none":
            self._write(_FEATURES_FILE, features.permute(0, 2, 3, 1))

    def _write(self, name: str, values: Tensor) -> None:
        halves = values.half().cpu()
        if not bool(torch.isfinite(halves).all()):
            raise TargetsError(
                f"{name}: the teacher's outputs are not finite, or beyond the range of "
                "float16 (65,504); allowed: a teacher with outputs of ordinary size"
            )
        self._files[name].write(halves.contiguous().numpy().data)

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


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
