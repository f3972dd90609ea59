"""Write a student's files, prove that they say what PyTorch says, and measure them.

Shapes: N images, S = image_size, K classes.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from distillation.base.checksums import hash_file
from distillation.base.limits import find_out_of_memory
from distillation.data.prepared import PreparedData
from distillation.data.rows import make_rows
from distillation.export.agreement import Agreement, check_agreement, compare_logits
from distillation.export.counting import count_multiply_adds, count_parameters
from distillation.export.errors import ExportError, refuse
from distillation.export.onnx_file import export_onnx, plain_copy, set_metadata
from distillation.export.quantization import choose_calibration_images, quantize
from distillation.export.selection import Selection
from distillation.export.sessions import (
    INPUT,
    INT8_FILE,
    ONNX_FILE,
    WEIGHTS,
    ExportedModel,
    load_exported,
    write_reason,
)
from distillation.export.timing import measure_speeds
from distillation.export.timm_folder import WEIGHTS_FILE, check_timm_folder, write_timm_folder
from distillation.models.classifier import Classifier, fingerprint_model
from distillation.runs.environment import cpu_model
from distillation.training.evaluation import measure_logits, predict_logits
from distillation.training.runtime import CPU

logger = logging.getLogger(__name__)

FILES = {"student": ONNX_FILE, "student_int8": INT8_FILE}
"""The files by the names that metrics have for their models."""

NOTABLE_LOSS_POINTS = 1.0
"""Accuracy the int8 student may lose before everything that names it warns."""

_NUM_TEACHER_IMAGES = 200
"""Test images on which the teacher's export is checked; it is only timed, not shipped."""
_PACKAGES = ("torch", "timm", "onnx", "onnxruntime")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
    """The teacher, to be measured beside its student."""

    model: Classifier
    acc: float
    """On the test split, in percent."""


def export_student(
    student: Classifier,
    directory: Path,
    *,
    selection: Selection,
    teacher: Teacher,
    data: PreparedData,
    num_threads: int,
) -> dict[str, Any]:
    """Write `student.onnx`, `student-int8.onnx`, `model.safetensors` and `config.json`.

    Training may have taken days: what ONNX cannot express costs the file, not the results.

    Args:
        student: with the weights of the method that was chosen, on the CPU.
        directory: an empty folder.
        selection: the method.
        teacher: what it was distilled from.
        data: calibration images are taken from its training split; accuracy is that on its test
            split.
        num_threads: of ONNX Runtime while speed is measured.

    Returns:
        What `metrics/deploy.json` holds. Where the student cannot be expressed in ONNX or in 8
        bits, `remarks` and the file in its place say why.

    Raises:
        ExportError: timm disagrees with PyTorch about a test image.
    """
    test = data.test
    folder = write_timm_folder(
        student, directory, class_names=data.class_names, image_size=data.image_size
    )
    expected = torch_logits(student, test.images)
    folder, remarks = check_timm_folder(
        folder, directory, images=test.images, logits=expected, classify=torch_logits
    )
    metadata = describe(student, selection=selection, data=data)
    found = _write_onnx(
        student, directory, expected=expected, metadata=metadata, data=data, num_threads=num_threads
    )
    remarks += found.refusals
    measured = {name: measure(values, test.labels) for name, values in found.logits.items()}
    paths = {name: directory / FILES[name] for name in measured}
    for name, path in paths.items():
        kind = "float32" if name == "student" else "int8, static, calibrated on training images"
        accuracy = f"{measured[name]['acc']:.4f}"
        set_metadata(path, {**metadata, "precision": kind, "test_accuracy_percent": accuracy})
    models, about_teacher = _measure_all(paths, student, measured, teacher, data, num_threads)
    if "student" not in models:
        models["student"] = {
            **_describe_model(student, directory / WEIGHTS_FILE, data.image_size),
            **measure(expected, test.labels),
            "runtime": "torch",
        }
    remarks += about_teacher
    lost = models["student"]["acc"] - measured.get("student_int8", models["student"])["acc"]
    if lost > NOTABLE_LOSS_POINTS:
        remarks.append(
            f"The int8 student loses {lost:.2f} points of accuracy: use student.onnx unless its "
            "size matters more."
        )
    if not selection.is_trained:
        remarks.append("No epoch was run (epochs: 0): this is the student as it started.")
    for remark in remarks:
        logger.warning("%s", remark)
    names = [*(FILES[name] for name in paths), WEIGHTS_FILE]
    return {
        "device": "cpu",
        "cpu": cpu_model(),
        "num_threads": num_threads,
        "models": models,
        "method": selection.method,
        "seed": selection.record["seed"],
        "reason": selection.reason,
        "agreement": None if found.agreement is None else found.agreement.summary(),
        "files": {name: hash_file(directory / name) for name in names},
        "timm": folder.summary(),
        "remarks": remarks,
        "versions": versions(),
        "data": data.source,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OnnxFiles:
    """What became of the student's ONNX files."""

    logits: Mapping[str, NDArray[np.float32]]
    """Of the test images, by the name of each file's model; of those that are there."""
    agreement: Agreement | None
    """Of `student.onnx` with PyTorch."""
    refusals: list[str]
    """Why one is not there."""


def _write_onnx(
    student: Classifier,
    directory: Path,
    *,
    expected: NDArray[np.float32],
    metadata: Mapping[str, str],
    data: PreparedData,
    num_threads: int,
) -> _OnnxFiles:
    """Write `student.onnx` and `student-int8.onnx`, or in their places why they cannot be made."""
    whole, small = (directory / FILES[name] for name in FILES)
    logits, agreement, refusals = {}, None, []

    def run(path: Path) -> NDArray[np.float32]:
        return _load(path, num_threads).predict_logits(data.test.images)

    try:
        export_onnx(student, whole, image_size=data.image_size, metadata=metadata)
        logits["student"] = run(whole)
        agreement = compare_logits(expected, logits["student"])
        check_agreement(agreement, name=student.name)
    except ExportError as error:
        refusals = [f"There is no {ONNX_FILE} and no {INT8_FILE}: {error}"]
        for path in (whole, small):
            write_reason(path, str(error))
        return _OnnxFiles(logits={}, agreement=None, refusals=refusals)
    try:
        images = choose_calibration_images(data.train.images, image_size=data.image_size)
        quantize(whole, small, images=images)
        logits["student_int8"] = run(small)
        if not np.isfinite(logits["student_int8"]).all():
            raise ExportError(f"{student.name} in 8 bits has logits that are not finite")
    except ExportError as error:
        logits.pop("student_int8", None)
        refusals = [f"There is no {INT8_FILE}: {error}"]
        write_reason(small, str(error))
    return _OnnxFiles(logits=logits, agreement=agreement, refusals=refusals)


def describe(student: Classifier, *, selection: Selection, data: PreparedData) -> dict[str, str]:
    """Return the metadata of the ONNX files, but for what is measured on them."""
    size = data.image_size
    checksum = data.provenance.get("sha256")
    return {
        "architecture": student.name,
        "method": selection.method,
        "best_epoch": str(selection.record["best_epoch"]),
        "class_names": json.dumps(list(data.class_names), ensure_ascii=False),
        "data": data.source,
        "data_sha256": "none: the set comes with a library" if checksum is None else checksum,
        "epochs": str(selection.record["epochs"]),
        "image_size": str(size),
        "input": f"{INPUT}: uint8 (batch, 3, {size}, {size}), RGB, 0 to 255, not normalised",
        "output": f"logits: float32 (batch, {data.num_classes}), in the order of class_names",
        "prepared_data_fingerprint": data.fingerprint,
        "seed": str(selection.record["seed"]),
        WEIGHTS: fingerprint_model(student),
        "versions": json.dumps(versions()),
    }


def versions() -> dict[str, str]:
    """Return the versions of what makes the files."""
    found = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **found}


def torch_logits(model: Classifier, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return PyTorch's logits (N, K) of images (N, S, S, 3), on the CPU in float32."""
    return predict_logits(model, make_rows(images, CPU.device), runtime=CPU).numpy()


def measure(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracy in percent with its 95 % interval (Wilson's), and macro-F1.

    The interval says how far the accuracy on so many test images may be from that on all images of
    their kind; what another seed of the training does is not in it.
    """
    metrics = measure_logits(torch.from_numpy(logits), torch.from_numpy(labels))
    right = round(metrics.acc / 100 * len(labels))
    interval = stats.binomtest(right, len(labels)).proportion_ci(0.95, method="wilson")
    return {
        "acc": round(metrics.acc, 4),
        "acc_low": round(100 * float(interval.low), 4),
        "acc_high": round(100 * float(interval.high), 4),
        "f1": round(metrics.f1, 6),
    }


def _measure_all(
    paths: Mapping[str, Path],
    student: Classifier,
    measured: Mapping[str, Mapping[str, float]],
    teacher: Teacher,
    data: PreparedData,
    num_threads: int,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Measure size, arithmetic and speed of all models; and say what could not be measured."""
    nets = dict.fromkeys(paths, student)
    accuracies: dict[str, Mapping[str, float]] = dict(measured)
    remarks = []
    with tempfile.TemporaryDirectory(prefix="teacher-") as folder:
        files = dict(paths)
        try:
            path = Path(folder) / "teacher.onnx"
            _export_teacher(teacher, path, data=data, num_threads=num_threads)
            files = {"teacher": path, **files}
            nets = {"teacher": teacher.model, **nets}
            accuracies["teacher"] = {"acc": round(teacher.acc, 4)}
        except Exception as error:
            if isinstance(error, ExportError):
                remarks.append(f"The teacher is not measured: {error}")
            elif find_out_of_memory(error) is not None:
                remarks.append("The teacher is not measured: memory ran out.")
            else:
                raise
        sessions: dict[str, ExportedModel] = {
            name: load_exported(path, num_threads=num_threads) for name, path in files.items()
        }
        speeds = measure_speeds(sessions) if sessions else {}
        models = {}
        for name, path in files.items():
            models[name] = {
                **_describe_model(nets[name], path, data.image_size),
                **accuracies[name],
                **dataclasses.asdict(speeds[name]),
                "runtime": "onnxruntime",
            }
    return models, remarks


def _load(path: Path, num_threads: int) -> ExportedModel:
    """Open a file that was just written: what is wrong with it is no damage, but the model."""
    try:
        return load_exported(path, num_threads=num_threads)
    except ExportError as error:
        raise refuse(f"ONNX Runtime cannot load {path.name}", error) from error


def _describe_model(model: Classifier, path: Path, image_size: int) -> dict[str, Any]:
    return {
        "model": model.name,
        "parameters": count_parameters(model),
        "multiply_adds": count_multiply_adds(plain_copy(model), image_size),
        "file_bytes": path.stat().st_size,
    }


def _export_teacher(teacher: Teacher, path: Path, *, data: PreparedData, num_threads: int) -> None:
    """Write the teacher for the timing, and check on some images that it is the teacher.

    Raises:
        ExportError: it cannot be expressed in ONNX, or says something else there.
    """
    metadata = {
        "class_names": json.dumps(list(data.class_names)),
        "image_size": str(data.image_size),
    }
    size = data.image_size
    export_onnx(teacher.model, path, image_size=size, metadata=metadata, is_shipped=False)
    images = np.array(data.test.images[:_NUM_TEACHER_IMAGES])
    found = _load(path, num_threads).predict_logits(images)
    agreement: Agreement = compare_logits(torch_logits(teacher.model, images), found)
    check_agreement(agreement, name=teacher.model.name)


def log_result(deploy: Mapping[str, Any], selection: Selection) -> None:
    """Log what was exported and how well it agrees with PyTorch."""
    models, agreement = deploy["models"], deploy["agreement"]
    student = models["student"]
    int8 = models.get("student_int8")
    logger.info(
        "%s of %s: test accuracy %.2f %%%s",
        student["model"],
        selection.method,
        student["acc"],
        "" if int8 is None else f" (int8: {int8['acc']:.2f} %)",
    )
    if agreement is None:
        return
    logger.info(
        "ONNX Runtime predicts what PyTorch predicts on %d of %d test images (%d of the others "
        "are ties), logits at most %.2g apart",
        agreement["same_predictions"],
        agreement["num_images"],
        agreement["ties"],
        agreement["largest_logit_difference"],
    )
