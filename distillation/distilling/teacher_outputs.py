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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillation.base.checksums import check_files, describe_repair, read_sealed
from distillation.base.errors import DistillationError
from distillation.data.prepared import PreparedData
from distillation.data.rows import Indices, Rows, make_rows
from distillation.distilling.cache_plan import CachePlan
from distillation.models.classifier import Classifier, fingerprint_model
from distillation.training.batches import TrainSet
from distillation.training.recipes import view_settings
from distillation.training.runtime import Runtime
from distillation.training.setup import Setup, distillation_set
from distillation.training.views import ViewSettings

META_FILE, SAMPLES_FILE = "meta.json", "samples.npy"
LOGITS_FILE, FEATURES_FILE = "logits.npy", "features.npy"


class TeacherOutputsError(DistillationError):
    """Stored outputs of a teacher are missing, damaged, or not those of this teacher."""


class StoredOutputs:
    """Stored outputs of a teacher, by sample and view."""

    def __init__(
        self,
        plan: CachePlan,
        *,
        row_of_sample: Tensor,
        logits: Rows,
        features: Rows | None,
        device: torch.device,
        fingerprint: Mapping[str, Any],
    ) -> None:
        self.plan = plan
        self.fingerprint = fingerprint
        """What they depend on, as `fingerprint_teacher_outputs` has it."""
        self._row_of_sample = row_of_sample
        self._row_on_device = row_of_sample.to(device)
        self._logits = logits
        self._features = features

    @property
    def is_streamed(self) -> bool:
        """Whether taking them reads a file."""
        return self._logits.is_streamed or bool(self._features and self._features.is_streamed)

    def has_features(self, kind: str | None) -> bool:
        """Return whether features of a kind can be taken; of no kind, always."""
        return kind is None or self.plan.features in (kind, "map")

    def select(self, kind: str | None) -> StoredOutputs:
        """Return the same outputs with features of one kind, or without where there are none."""
        return StoredOutputs(
            self.plan,
            row_of_sample=self._row_of_sample,
            logits=self._logits,
            features=self._features if kind is not None and self.has_features(kind) else None,
            device=self._row_on_device.device,
            fingerprint=self.fingerprint,
        )

    def take(self, samples: Indices, view_number: int) -> dict[str, Tensor]:
        """Return `logits` (B, K) and, where stored, `features` (B, C, h, w), in float32.

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


def load_teacher_outputs(
    directory: Path, *, fingerprint: dict[str, Any], train: TrainSet, device: torch.device
) -> StoredOutputs:
    """Open what `store_teacher_outputs` stored, and compare its files with their checksums.

    That reads them once, in pieces; large files are read again when they are needed.

    Args:
        directory: where it lies.
        fingerprint: of the teacher, data, views and precision at hand.
        train: the data set and the samples whose outputs are wanted.
        device: where the outputs are wanted.

    Raises:
        TeacherOutputsError: files are missing or damaged, or belong to something else; the message
            says what differs.
    """
    try:
        meta = read_sealed(directory / META_FILE)
        stored = dict(meta["fingerprint"])
        plan = CachePlan(**{**meta["plan"], "feature_shape": tuple(meta["plan"]["feature_shape"])})
        different = [
            f"{key.replace('_', ' ')} (stored {_short(stored.get(key))}, now {_short(value)})"
            for key, value in fingerprint.items()
            if stored.get(key) != value
        ]
        if different:
            raise TeacherOutputsError(
                f"{directory}: these outputs were computed for something else; different: "
                f"{', '.join(different)}; run teacher_targets again"
            )
        names = [SAMPLES_FILE, LOGITS_FILE, *([] if plan.features == "none" else [FEATURES_FILE])]
        check_files(directory, {name: meta["files"][name] for name in names})
        samples = torch.from_numpy(np.load(directory / SAMPLES_FILE))
        rows = plan.num_views * plan.num_samples
        logits = _open_rows(directory / LOGITS_FILE, (rows, plan.num_classes))
        features = None
        if plan.features != "none":
            features = _open_rows(directory / FEATURES_FILE, (rows, *plan.stored_shape))
        row_of_sample = torch.full((len(train),), -1)
        row_of_sample[samples] = torch.arange(plan.num_samples)
    except TeacherOutputsError:
        raise
    # Whatever damaged files make the readers stumble over, the answer for the user is the same.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TeacherOutputsError(
            f"{directory}: no complete outputs of a teacher ({reason}); "
            f"{describe_repair(directory, by='teacher_targets')}"
        ) from error
    num_samples = len(train.samples)
    if (fingerprint["mixup"] or fingerprint["cutmix"]) and plan.num_samples != num_samples:
        raise TeacherOutputsError(
            f"{directory}: mixed views of {plan.num_samples} samples are stored, now there are "
            f"{num_samples}, so that other partners are mixed in; run teacher_targets again"
        )
    missing = int((row_of_sample[train.samples] < 0).sum())
    if missing or int((row_of_sample >= 0).sum()) != plan.num_samples:
        raise TeacherOutputsError(
            f"{directory}: the outputs of {missing} of {len(train.samples)} samples are missing, "
            "or samples.npy is damaged; run teacher_targets again"
        )
    return StoredOutputs(
        plan,
        row_of_sample=row_of_sample,
        logits=make_rows(logits, device),
        features=None if features is None else make_rows(features, device),
        device=device,
        fingerprint=fingerprint,
    )


def output_settings(setup: Setup) -> dict[str, Any]:
    """Return what a teacher's outputs depend on besides the teacher, as keyword arguments."""
    return {
        "data": setup.data,
        "views": view_settings(setup),
        "num_views": setup.params.num_views,
        "runtime": setup.runtime,
    }


def open_teacher_outputs(setup: Setup, teacher: Classifier, directory: Path) -> StoredOutputs:
    """Open what the stage `teacher_targets` stored for this teacher, data and views.

    Raises:
        TeacherOutputsError: as `load_teacher_outputs` does.
    """
    return load_teacher_outputs(
        directory,
        fingerprint=fingerprint_teacher_outputs(teacher, **output_settings(setup)),
        train=distillation_set(setup),
        device=setup.runtime.device,
    )


def fingerprint_teacher_outputs(
    teacher: Classifier,
    *,
    data: PreparedData,
    views: ViewSettings,
    num_views: int,
    runtime: Runtime,
) -> dict[str, Any]:
    """Return what a teacher's outputs depend on, under names a message can use."""
    return {
        "teacher": teacher.name,
        "teacher_weights": fingerprint_model(teacher),
        "prepared_data": data.fingerprint,
        **_describe_views(views),
        "num_views": num_views,
        "precision": runtime.precision,
    }


def _describe_views(views: ViewSettings) -> dict[str, Any]:
    """Return the settings of views as flat values."""
    settings = dataclasses.asdict(views)
    crop = settings.pop("resized_crop")
    settings["augmentation"] = "crop" if crop is None else "resized crop"
    return {**settings, **{f"crop_{name}": value for name, value in (crop or {}).items()}}


def _open_rows(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    array = np.load(path, mmap_mode="r")
    if array.shape != shape or array.dtype != np.float16:
        raise ValueError(
            f"{path.name} holds {array.dtype} of shape {array.shape}, not float16 of {shape}"
        )
    if path.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not what its header says")
    return array


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
