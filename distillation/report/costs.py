"""Test accuracy against what training cost: the control at its lengths, the distilled students."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from markupsafe import Markup

from distillation.base.methods import CONTROL
from distillation.base.workspace import TEACHER
from distillation.report.drawing import new_figure, to_svg, use_log_scale
from distillation.report.inputs import Inputs
from distillation.report.labels import Label, write_labels
from distillation.report.palette import MUTED, SURFACE, Style
from distillation.results.costs import Point, TrainingCosts
from distillation.results.intervals import NOISE_POINTS

_WIDE, _NARROW = (900, 340), (350, 330)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table; minutes are the time of cores or GPUs."""

    name: str
    point: Point
    total_minutes: float
    """With the teacher and its outputs, where it needs them."""
    control_acc: float | None
    """What the control reaches at that cost; None where none was trained that long."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostsSection:
    """Picture and table."""

    training: TrainingCosts
    rows: list[Row]
    wide: Markup
    """For a desktop."""
    narrow: Markup
    """The same, for a phone."""


def draw_costs(
    inputs: Inputs, styles: Mapping[str, Style], colors: Mapping[str, str]
) -> CostsSection | None:
    """Draw accuracy against cost; None where there is nothing to compare."""
    costs = inputs.costs
    if costs is None:
        return None
    rows = [
        *(
            Row(name=CONTROL, point=point, total_minutes=point.minutes, control_acc=None)
            for point in costs.controls
        ),
        *(
            Row(
                name=point.method,
                point=point,
                total_minutes=(total := costs.total_minutes(point)),
                control_acc=costs.control_at(total),
            )
            for point in costs.distilled
        ),
    ]
    return CostsSection(
        training=costs,
        rows=rows,
        wide=_draw(costs, styles, colors, size=_WIDE, name="costs-wide"),
        narrow=_draw(costs, styles, colors, size=_NARROW, name="costs-narrow"),
    )


def describe_equal_cost(costs: TrainingCosts, method: str | None) -> str | None:
    """Say what labels alone reach in the time that teacher, outputs and a student take together.

    None where no such method is there, or no teacher was trained here from nothing.
    """
    point = next((point for point in costs.distilled if point.method == method), None)
    if point is None or costs.teacher.minutes == 0:
        return None
    total = costs.total_minutes(point)
    together = (
        f"Teacher, its outputs and one student of {method} took {total:.1f} {costs.unit}-minutes"
    )
    reached = costs.control_at(total)
    if reached is None:
        return (
            f"{together}: what labels alone reach in that time was not measured (control_epochs)."
        )
    alone = f"{together}. In that time labels alone reach about {reached:.2f} %"
    if reached > point.acc + NOISE_POINTS:
        return (
            f"{alone}, more than {method}’s {point.acc:.2f} %: if the teacher has yet to be "
            "trained, train the student longer instead."
        )
    return f"{alone}, {method} {point.acc:.2f} %."


def _draw(
    costs: TrainingCosts,
    styles: Mapping[str, Style],
    colors: Mapping[str, str],
    *,
    size: tuple[int, int],
    name: str,
) -> Markup:
    label = f"training time, {costs.unit}-minutes"
    with new_figure(*size) as (figure, axes):
        axes.grid(visible=True, axis="both")
        use_log_scale(axes, "x")
        labels = []
        color = styles[CONTROL].color
        minutes = [point.minutes for point in costs.controls]
        axes.plot(minutes, [p.acc for p in costs.controls], "o-", color=color, markersize=5)
        for point in costs.controls:
            if point.acc_std is not None:
                axes.errorbar(point.minutes, point.acc, yerr=point.acc_std, color=color)
            text = "1 epoch" if point.epochs == 1 else f"{point.epochs} epochs"
            labels.append(Label(text, point.minutes, point.acc, on_left=False, size=9))
        for point in costs.distilled:
            color, total = styles[point.method].color, costs.total_minutes(point)
            axes.plot([point.minutes, total], [point.acc] * 2, ":", color=MUTED, linewidth=1.0)
            axes.plot(point.minutes, point.acc, "o", color=color, markersize=8)
            axes.plot(
                total, point.acc, "o", color=color, markerfacecolor=SURFACE, markersize=8,
                markeredgewidth=1.8,
            )  # fmt: skip
            labels.append(Label(point.method, point.minutes, point.acc, on_left=True))
        if costs.teacher.minutes > 0:
            style = styles[TEACHER]
            axes.plot(costs.teacher.minutes, costs.teacher.acc, "s", color=style.color)
            labels.append(Label(TEACHER, costs.teacher.minutes, costs.teacher.acc, on_left=False))
        axes.margins(x=0.12, y=0.12)
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy, %")
        write_labels(figure, axes, labels)
        return to_svg(figure, name=name, title=f"Test accuracy against {label}", colors=colors)
