"""The head of the model card that the Hugging Face Hub reads: library, task, data, metrics.

`huggingface_hub` writes it and reads it back, so that no text of a user can break it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from distillation.data.balance import measure_balance
from distillation.data.prepared import PreparedData
from distillation.results.doubts import majority_note

_TASK = "image-classification"

LICENSE = "unknown"
"""The Hub's word where nobody has said under which licence the weights may be used."""


def add_front_matter(text: str, deploy: Mapping[str, Any], *, data: PreparedData) -> str:
    """Return a card with its front matter before the text.

    Args:
        text: the card, in Markdown.
        deploy: what `export_student` measured.
        data: the set it was trained on.
    """
    formats = ["safetensors"] if deploy["agreement"] is None else ["onnx", "safetensors"]
    front = ModelCardData(
        library_name="timm",
        license=LICENSE,
        pipeline_tag=_TASK,
        tags=[_TASK, "timm", *formats, "knowledge-distillation"],
        datasets=hub_datasets(data.source) or None,
        metrics=["accuracy", "f1"],
        model_name=deploy["models"]["student"]["model"],
        eval_results=_results(deploy, data=data),
    )
    # Made a card here, it is read as the Hub's own library reads it.
    return str(ModelCard(f"---\n{front.to_yaml()}\n---\n\n{text}"))


def hub_datasets(source: str) -> list[str]:
    """Return the names on the Hub of what the images are; none where it is not there."""
    return ["uoft-cs/cifar10"] if re.match(r"CIFAR-10( \(|$)", source) else []


def _results(deploy: Mapping[str, Any], *, data: PreparedData) -> list[EvalResult]:
    """Return accuracy and macro-F1 of the float32 student, as fractions."""
    student, num_images = deploy["models"]["student"], len(data.test)
    note = majority_note(measure_balance(data.test.labels, data.class_names).summary())
    beside = "" if note is None else f"; {note}"
    # The specification wants an identifier for every data set, whether the Hub has it or not.
    # A copy of the Hub's set has other pixels, or fewer images: it is no result on that set.
    (dataset, *_) = [
        *(hub_datasets(data.source) if data.source == "CIFAR-10" else []),
        "image-folder",
    ]
    shared: dict[str, Any] = {
        "task_type": _TASK,
        "dataset_type": dataset,
        "dataset_name": " ".join(data.source.split()),
        "dataset_split": "test",
    }
    return [
        EvalResult(
            metric_type="accuracy",
            metric_name=f"Accuracy (n = {num_images:,}{beside})",
            metric_value=round(student["acc"] / 100, 6),
            **shared,
        ),
        EvalResult(
            metric_type="f1",
            metric_name=f"Macro-F1 (n = {num_images:,})",
            metric_value=student["f1"],
            metric_args={"average": "macro"},
            **shared,
        ),
    ]
