"""Learning curves: every method in one picture, validation accuracy and each loss term.

The line is the mean over the seeds, the band reaches from the lowest to the highest of them. Both
end at the last epoch that all seeds have reached.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from distillation.base.workspace import TEACHER
from distillation.report.drawing import new_figure, to_svg, use_log_scale, whole_ticks
from distillation.report.inputs import Inputs
from distillation.report.palette import Style

_TERMS = {
    "loss": "weighted sum; the control’s: cross-entropy",
    "label": "cross-entropy with the labels",
    "logit": "the method’s logit term",
    "feature": "the method’s feature term",
}
_WIDE, _NARROW = (900, 340), (350, 270)
_PANEL = (350, 220)
_LOG_RATIO = 25.0
"""A term whose values span more than this is drawn on a logarithmic axis."""

_Value = Callable[[Mapping[str, Any]], float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """A small picture with its heading."""

    title: str
    note: str
    picture: Markup


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """All learning curves."""

    wide: Markup
    """Validation accuracy, for a desktop."""
    narrow: Markup
    """The same, for a phone."""
    panels: list[Panel]
    without_history: list[str]
    """Methods that recorded no epochs."""


def draw_curves(
    inputs: Inputs, styles: Mapping[str, Style], colors: Mapping[str, str]
) -> Curves | None:
    """Draw the curves of all methods; None when no method recorded an epoch."""
    histories = {
        name: [record["history"] for record in records if record.get("history")]
        for name, records in inputs.methods.items()
    }
    drawn = {name: found for name, found in histories.items() if found}
    if not drawn:
        return None
    level = _teacher_level(inputs)

    def accuracy(size: tuple[int, int], name: str) -> Markup:
        with new_figure(*size) as (figure, axes):
            _draw_methods(axes, drawn, styles, lambda epoch: epoch["validation"]["acc"])
            axes.set_ylabel("validation accuracy, %")
            if level is not None:
                style = styles[TEACHER]
                axes.axhline(level, color=style.color, linestyle=style.linestyle, linewidth=1.4)
            return to_svg(
                figure,
                name=name,
                title=f"Validation accuracy by epoch of {', '.join(drawn)}",
                colors=colors,
            )

    return Curves(
        wide=accuracy(_WIDE, "curves-wide"),
        narrow=accuracy(_NARROW, "curves-narrow"),
        panels=_panels(drawn, styles, colors),
        without_history=[name for name in histories if name not in drawn],
    )


def _panels(
    drawn: Mapping[str, list[Any]], styles: Mapping[str, Style], colors: Mapping[str, str]
) -> list[Panel]:
    epochs = [epoch for method in drawn.values() for history in method for epoch in history]
    recorded = dict.fromkeys(term for epoch in epochs for term in epoch["terms"])
    terms = [term for term in _TERMS if term in recorded]
    terms += [term for term in recorded if term not in _TERMS]
    wanted: list[tuple[str, str, _Value]] = [
        (f"training: {term}", _TERMS.get(term, ""), functools.partial(_term, name=term))
        for term in terms
    ]
    wanted.append(("validation: loss", "cross-entropy", lambda epoch: epoch["validation"]["loss"]))
    panels = []
    for number, (title, note, value) in enumerate(wanted):
        with new_figure(*_PANEL) as (figure, axes):
            values = _draw_methods(axes, drawn, styles, value)
            if values and min(values) > 0 and max(values) > _LOG_RATIO * min(values):
                use_log_scale(axes)
            picture = to_svg(figure, name=f"term{number}", title=f"{title} by epoch", colors=colors)
        panels.append(Panel(title=title, note=note, picture=picture))
    return panels


def _term(epoch: Mapping[str, Any], *, name: str) -> float | None:
    return epoch["terms"].get(name)


def _draw_methods(
    axes: Axes, drawn: Mapping[str, list[Any]], styles: Mapping[str, Style], value: _Value
) -> list[float]:
    """Draw a line for each method that has the value; gives all values drawn."""
    shown: list[float] = []
    longest = 1
    for name, histories in drawn.items():
        curves = _curves(histories, value)
        if curves is None:
            continue
        style, epochs = styles[name], np.arange(1, curves.shape[1] + 1)
        if len(curves) > 1:
            low, high = curves.min(axis=0), curves.max(axis=0)
            axes.fill_between(epochs, low, high, color=style.color, alpha=0.12, linewidth=0)
        marker = "o" if len(epochs) <= 12 else None
        axes.plot(
            epochs,
            curves.mean(axis=0),
            color=style.color,
            linestyle=style.linestyle,
            marker=marker,
            markersize=3.5,
        )
        shown += curves.ravel().tolist()
        longest = max(longest, len(epochs))
    axes.set_xlabel("epoch")
    axes.set_xlim(1 - 0.02 * longest, longest + 0.02 * longest)
    whole_ticks(axes)
    return shown


def _curves(histories: Sequence[Any], value: _Value) -> NDArray[np.float64] | None:
    """Return (S, E) values of S seeds in the E epochs that all reached; None without any."""
    num_epochs = min(len(history) for history in histories)
    rows = [[value(epoch) for epoch in history[:num_epochs]] for history in histories]
    if any(one is None for row in rows for one in row):
        return None
    return np.array(rows, dtype=np.float64)


def _teacher_level(inputs: Inputs) -> float | None:
    found = [record["validation_acc"] for record in inputs.teacher]
    values = [value for value in found if value is not None]
    return statistics.fmean(values) if values else None
