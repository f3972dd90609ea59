"""How well each class is found, against the control.

Shapes: S trainings, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from distillation.base.methods import CONTROL
from distillation.report.confusion import confusion_shares, count_confusions
from distillation.report.drawing import name_ticks, new_figure, to_svg
from distillation.report.inputs import Inputs
from distillation.report.palette import INK, MUTED, Style

_MOST_BARS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallRow:
    """A class's recall in percent, and by how many points the methods are away from the control."""

    name: str
    control: float | None
    changes: list[float | None]
    """None, as `control`, for a class without test images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recalls:
    """The change of one method as a picture, of all as a table."""

    picture: Markup
    num_shown: int
    """How many classes the picture shows."""
    num_present: int
    """How many classes have a test image."""
    methods: list[str]
    rows: list[RecallRow]


def draw_recalls(
    inputs: Inputs,
    styles: Mapping[str, Style],
    colors: Mapping[str, str],
    *,
    shown_method: str | None,
) -> Recalls | None:
    """Compare every class's recall with the control's; None without the control or a method."""
    if shown_method is None or not inputs.has_control:
        return None
    classes = inputs.data.class_names
    recalls = _recalls(inputs, classes)
    distilled = [name for name in inputs.methods if name != CONTROL]
    changes = {name: recalls[name] - recalls[CONTROL] for name in distilled}
    num_present = len(classes) - len(inputs.absent_classes)
    return Recalls(
        picture=_draw_changes(inputs, styles[shown_method], colors),
        num_shown=min(num_present, _MOST_BARS),
        num_present=num_present,
        methods=distilled,
        rows=[
            RecallRow(
                name=class_name,
                control=_points(recalls[CONTROL][place]),
                changes=[_points(changes[name][place]) for name in distilled],
            )
            for place, class_name in enumerate(classes)
        ],
    )


def _points(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _recalls(inputs: Inputs, classes: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return (K,) recalls in percent by method, over all trainings; NaN for an absent class."""
    present = np.bincount(inputs.data.test.labels, minlength=len(classes)) > 0
    return {
        name: np.where(present, np.diag(confusion_shares(inputs.predictions[name])), np.nan)
        for name in inputs.methods
    }


def _draw_changes(inputs: Inputs, style: Style, colors: Mapping[str, str]) -> Markup:
    """Draw a bar per class with test images, and a dot per seed that both methods have."""
    classes = inputs.data.class_names
    changes, of_seeds = _changes(inputs, style.name)
    order = np.argsort(-changes, kind="stable")  # NaN, of an absent class, comes last
    order = order[: np.isfinite(changes).sum()]
    if len(order) > _MOST_BARS:
        half = _MOST_BARS // 2
        order = np.concatenate([order[:half], order[-half:]])
    with new_figure(370, 60 + 18 * len(order)) as (figure, axes):
        axes.grid(visible=False)
        axes.grid(visible=True, axis="x")
        places = np.arange(len(order))
        axes.barh(places, changes[order], height=0.62, color=style.color, alpha=0.75)
        if len(of_seeds) > 1:
            for row in of_seeds:
                axes.plot(row[order], places, "o", color=INK, markersize=2.6, alpha=0.7)
        axes.axvline(0, color=MUTED, linewidth=1.0)
        name_ticks(axes, "y", {place: classes[one] for place, one in enumerate(order)}, 20)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlabel("change of recall against the control, points")
        return to_svg(
            figure,
            name="recall",
            title=f"Change of every class's recall, {style.name} against the control",
            colors=colors,
        )


def _changes(inputs: Inputs, method: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Return changes (K,) in points, and (S, K) of the seeds both methods have.

    They are NaN for a class without test images.
    """
    by_seed = {}
    for name in (method, CONTROL):
        predictions = inputs.predictions[name]
        counts = count_confusions(predictions)
        totals = counts.sum(axis=2)
        right = np.diagonal(counts, axis1=1, axis2=2)
        recalls = np.where(totals > 0, 100.0 * right / np.maximum(totals, 1), np.nan)
        by_seed[name] = dict(zip(predictions.seeds.tolist(), recalls, strict=True))
    seeds = [seed for seed in by_seed[method] if seed in by_seed[CONTROL]]
    means = [np.mean(list(by_seed[name].values()), axis=0) for name in (method, CONTROL)]
    return means[0] - means[1], np.array([by_seed[method][s] - by_seed[CONTROL][s] for s in seeds])
