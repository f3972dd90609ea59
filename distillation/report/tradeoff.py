"""Accuracy against what a model costs: its size and its latency, teacher and students.

Sizes and speeds come from `metrics/deploy.json`, where one student was exported. The students of
all methods share one architecture, so the others stand at that student's size and latency.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from distillation.base.workspace import TEACHER
from distillation.report.drawing import new_figure, to_svg
from distillation.report.inputs import Inputs, ReportError
from distillation.report.labels import LABEL_GAP, Label, write_labels
from distillation.report.palette import SURFACE, Style

_SIZE = (350, 270)
_ROOM_BELOW = 70
"""Pixels of the height that axis and its text take."""
_MODELS = {"teacher": "teacher", "student": "student", "student_int8": "student, int8"}
_NUMBERS = (
    "parameters",
    "multiply_adds",
    "file_bytes",
    "acc",
    "latency_ms_p50",
    "latency_ms_p95",
    "throughput_images_per_second",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A model in the table; numbers in the units of `deploy.json`."""

    name: str
    values: Mapping[str, Any]
    times_smaller: float | None
    """How many times smaller its file is than the teacher's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """Table and pictures."""

    rows: list[Row]
    size: Markup
    latency: Markup
    method: str
    """The method whose student was exported."""
    seed: int
    device: str
    num_threads: int


def draw_tradeoff(
    inputs: Inputs, styles: Mapping[str, Style], colors: Mapping[str, str]
) -> Tradeoff | None:
    """Draw accuracy against size and latency; None where no student's speed was measured.

    Raises:
        ReportError: `deploy.json` lacks something.
    """
    deploy = inputs.deploy
    if deploy is None:
        return None
    try:
        if "latency_ms_p50" not in deploy["models"]["student"] and deploy["agreement"] is None:
            return None  # it could not be expressed in ONNX
        method = str(deploy["method"])
        models = {name: deploy["models"][name] for name in _MODELS if name in deploy["models"]}
        for values in models.values():
            for key in _NUMBERS:
                float(values[key])
        teacher_bytes = models["teacher"]["file_bytes"] if "teacher" in models else None
        others = {
            name: statistics.fmean([record["best_acc"] for record in records])
            for name, records in inputs.methods.items()
            if name != method and "student" in models
        }

        def picture(key: str, scale: float, label: str, name: str) -> Markup:
            costs = {model: values[key] * scale for model, values in models.items()}
            return _scatter(costs, models, others, method, styles, colors, label=label, name=name)

        return Tradeoff(
            rows=[
                Row(
                    name=_MODELS[name],
                    values=values,
                    times_smaller=teacher_bytes / values["file_bytes"] if teacher_bytes else None,
                )
                for name, values in models.items()
            ],
            size=picture("file_bytes", 1e-6, "size of the file, MB", "size"),
            latency=picture("latency_ms_p50", 1.0, "latency at batch 1, ms (median)", "latency"),
            method=method,
            seed=int(deploy["seed"]),
            device=str(deploy["device"]),
            num_threads=int(deploy["num_threads"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(
            f"deploy.json: lacks or misstates {error}; run export_student again"
        ) from error


def _scatter(
    costs: Mapping[str, float],
    models: Mapping[str, Mapping[str, Any]],
    others: Mapping[str, float],
    method: str,
    styles: Mapping[str, Style],
    colors: Mapping[str, str],
    *,
    label: str,
    name: str,
) -> Markup:
    width, height = _SIZE
    height = max(height, LABEL_GAP * (len(costs) + len(others)) + _ROOM_BELOW)
    with new_figure(width, height) as (figure, axes):
        axes.grid(visible=True, axis="both")
        largest = max(costs.values())
        labels = []
        for other, acc in others.items():
            cost = costs["student"]
            axes.plot(cost, acc, "o", color=styles[other].color, alpha=0.7, markersize=5)
            labels.append(Label(other, cost, acc, on_left=cost > 0.6 * largest, size=9))
        for model, cost in costs.items():
            style = styles[TEACHER if model == "teacher" or method not in styles else method]
            acc, is_int8 = models[model]["acc"], model == "student_int8"
            axes.plot(
                cost,
                acc,
                marker={"teacher": "s", "student": "o", "student_int8": "D"}[model],
                color=style.color,
                markerfacecolor=SURFACE if is_int8 else style.color,
                markeredgewidth=1.8,
                markersize=8,
            )
            text = _MODELS[model].removeprefix("student, ")
            labels.append(Label(text, cost, acc, on_left=cost > 0.6 * largest))
        axes.set_xlim(0, 1.12 * largest)
        axes.margins(y=0.2)
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy, %")
        write_labels(figure, axes, labels)
        return to_svg(figure, name=name, title=f"Test accuracy against {label}", colors=colors)
