"""Labels beside points that may lie on one another: placed so that none is over another."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distillation.report.drawing import POINTS_PER_INCH
from distillation.report.palette import INK, MUTED

LABEL_GAP = 13
"""Pixels from a label to the next one above."""
_LABEL_AWAY = 22
"""Pixels from a point to its label, sideways."""
_LETTER_WIDTH = 0.65
"""A letter's width as a share of the text's size, rather too wide."""


@dataclasses.dataclass(frozen=True)
class Label:
    """What stands beside a point, on which side."""

    text: str
    cost: float
    acc: float
    on_left: bool
    size: float = 11


def write_labels(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label beside its point, none over another; a line leads to those moved."""
    figure.draw_without_rendering()  # lays the axes out, so that places are known
    scale = POINTS_PER_INCH / figure.dpi
    points = axes.transData.transform([(one.cost, one.acc) for one in labels]) * scale
    bottom, top = (edge * scale for edge in (axes.bbox.y0, axes.bbox.y1))
    for column in _columns(labels, points[:, 0].tolist()):
        wanted = points[column, 1].tolist()
        heights = spread(wanted, gap=LABEL_GAP, low=bottom + LABEL_GAP / 2, high=top)
        for place, point, height in zip(column, wanted, heights, strict=True):
            _write_label(axes, labels[place], height - point)


def _columns(labels: Sequence[Label], points: Sequence[float]) -> list[list[int]]:
    """Return lists of labels that have no room beside each other, the last of them first."""
    spans = []
    for one, point in zip(labels, points, strict=True):
        width = _LABEL_AWAY + _LETTER_WIDTH * one.size * len(one.text)
        spans.append((point - width, point) if one.on_left else (point, point + width))
    columns: list[list[int]] = []
    end = float("-inf")
    for place in sorted(range(len(labels)), key=lambda one: spans[one]):
        if spans[place][0] > end:
            columns.append([])
        columns[-1].append(place)
        end = max(end, spans[place][1])
    return [sorted(column, reverse=True) for column in columns]


def _write_label(axes: Axes, label: Label, up: float) -> None:
    axes.annotate(
        label.text,
        (label.cost, label.acc),
        xytext=(-_LABEL_AWAY if label.on_left else _LABEL_AWAY, up),
        textcoords="offset points",
        ha="right" if label.on_left else "left",
        va="center",
        fontsize=label.size,
        color=INK,
        arrowprops={
            "arrowstyle": "-",
            "color": MUTED,
            "linewidth": 0.6,
            "shrinkA": 1,
            "shrinkB": 5,
            "relpos": (1.0 if label.on_left else 0.0, 0.5),
        },
    )


def spread(places: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Move places apart until neighbours have a gap, as little as needed; of equals in order.

    Args:
        places: where each would like to be.
        gap: between neighbours.
        low: no place is below, where they fit in.
        high: no place is above.
    """
    order = sorted(range(len(places)), key=lambda one: places[one])
    # Without the gaps between them places only have to keep their order: average those that do not.
    groups: list[list[float]] = []
    for rank, one in enumerate(order):
        groups.append([places[one] - rank * gap])
        while len(groups) > 1 and statistics.fmean(groups[-2]) > statistics.fmean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    highest = max(high - (len(places) - 1) * gap, low)
    starts = [min(max(statistics.fmean(group), low), highest) for group in groups for _ in group]
    moved = dict(zip(order, (start + rank * gap for rank, start in enumerate(starts)), strict=True))
    return [moved[one] for one in range(len(places))]
