"""Which classes are taken for which, and what distillation changes about it; recall is `recall`'s.

Shapes: K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from distillation.base.methods import CONTROL
from distillation.base.workspace import TEACHER
from distillation.report.drawing import name_ticks, new_figure, to_svg
from distillation.report.inputs import Inputs
from distillation.report.palette import INK, Style
from distillation.report.summary import number
from distillation.runs.predictions import Predictions

_MOST_NUMBERED = 12
"""Classes up to which a cell shows its number."""
_MOST_LABELS = 26
"""Classes beyond which some labels are left out."""
_LABEL_LETTERS = 12
"""Letters of a class name beside a matrix."""
_UPRIGHT_LETTERS = 34
"""Letters that have room side by side below a matrix."""
_NUM_PAIRS = 10
_MORE, _LESS = (0x2F, 0x7F, 0xC4), (0xD9, 0x6A, 0x1E)
"""Middle tones of blue and orange, good on a light and on a dark page."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix:
    """One confusion matrix, or the difference of two."""

    title: str
    note: str
    picture: Markup


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """A class taken for another, as shares of its test images, in percent."""

    true: str
    predicted: str
    share: float
    control_share: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confusion:
    """All matrices, and what they show at a glance."""

    main: list[Matrix]
    """Control, the method that is shown in detail, and their difference."""
    others: list[Matrix]
    pairs: list[Pair]
    pairs_method: str | None


def draw_confusion(
    inputs: Inputs,
    styles: Mapping[str, Style],
    colors: Mapping[str, str],
    *,
    shown_method: str | None,
) -> Confusion:
    """Draw the matrices of all methods and of the teacher.

    Args:
        inputs: the report's.
        styles: of the methods.
        colors: what stand-in colours become.
        shown_method: the distilled method that is shown in detail.
    """
    classes = inputs.data.class_names
    shares = {name: confusion_shares(found) for name, found in inputs.predictions.items()}
    first = [name for name in (CONTROL, shown_method) if name in shares]
    main = [_matrix(name, shares[name], classes, styles, colors) for name in first]
    if len(first) == 2:
        change = shares[first[1]] - shares[first[0]]
        title = f"{first[1]} minus {first[0]}"
        main.append(
            Matrix(
                title=title,
                note="points; blue is more, orange is less",
                picture=_draw_matrix(change, classes, colors, name="confusion-change", title=title),
            )
        )
    rest = [name for name in (TEACHER, *inputs.methods) if name in shares and name not in first]
    pairs_method = shown_method if shown_method is not None else next(iter(inputs.methods), None)
    return Confusion(
        main=main,
        others=[_matrix(name, shares[name], classes, styles, colors) for name in rest],
        pairs=_pairs(shares[pairs_method], shares.get(CONTROL), classes) if pairs_method else [],
        pairs_method=pairs_method,
    )


def count_confusions(predictions: Predictions) -> NDArray[np.int64]:
    """Count (S, K, K) by training: true class by row, predicted by column."""
    classes = list(range(len(predictions.class_names)))
    return np.stack(
        [
            confusion_matrix(predictions.labels, logits.argmax(axis=1), labels=classes)
            for logits in predictions.logits
        ]
    )


def confusion_shares(predictions: Predictions) -> NDArray[np.float64]:
    """Return (K, K) shares of a row in percent, over all trainings; 0 for an absent class."""
    counts = count_confusions(predictions).sum(axis=0)
    return 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _matrix(
    method: str,
    shares: NDArray[np.float64],
    classes: Sequence[str],
    styles: Mapping[str, Style],
    colors: Mapping[str, str],
) -> Matrix:
    return Matrix(
        title=method,
        note=styles[method].description,
        picture=_draw_matrix(
            shares,
            classes,
            colors,
            name=f"confusion-{list(styles).index(method)}",
            title=f"Confusion matrix of {method}",
        ),
    )


def _draw_matrix(
    values: NDArray[np.float64],
    classes: Sequence[str],
    colors: Mapping[str, str],
    *,
    name: str,
    title: str,
) -> Markup:
    """Draw percentages (K, K), or differences of them, on a ground that shows through."""
    num_classes = len(classes)
    length = max(map(len, classes)) if num_classes <= _MOST_LABELS else _LABEL_LETTERS
    margin = round(5.0 * min(length, _LABEL_LETTERS))
    with new_figure(300 + margin // 2, 290 + margin // 2) as (figure, axes):
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
        scale = np.abs(values).max() if (values < 0).any() else 100.0
        # The root shows the rare mistakes, which a straight scale leaves white.
        strength = np.sqrt(np.abs(values) / (scale or 1.0))
        pixels = np.zeros((*values.shape, 4), dtype=np.uint8)
        pixels[..., :3] = np.where((values >= 0)[..., None], _MORE, _LESS)
        pixels[..., 3] = np.round(215 * strength)
        axes.imshow(pixels, interpolation="none", aspect="equal")
        _label_classes(axes, classes)
        if num_classes <= _MOST_NUMBERED:
            _number_cells(axes, values)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        return to_svg(figure, name=name, title=title, colors=colors)


def _label_classes(axes: Axes, classes: Sequence[str]) -> None:
    step = 1 if len(classes) <= _MOST_LABELS else -(-len(classes) // 20)
    places = list(range(0, len(classes), step))
    names = {place: classes[place] for place in places}
    longest = min(max(map(len, names.values())), _LABEL_LETTERS)
    size = 11.0 if len(places) <= 6 else 9.0 if len(places) <= _MOST_NUMBERED else 7.0
    is_upright = (longest + 1) * len(places) <= _UPRIGHT_LETTERS
    rotation = 0 if is_upright else 90
    name_ticks(axes, "x", names, _LABEL_LETTERS, rotation=rotation, fontsize=size)
    name_ticks(axes, "y", names, _LABEL_LETTERS, fontsize=size)
    axes.tick_params(length=0)


def _number_cells(axes: Axes, values: NDArray[np.float64]) -> None:
    is_difference = bool((values < 0).any())
    for (row, column), value in np.ndenumerate(values):
        if abs(value) < 0.5:
            continue
        axes.text(
            column,
            row,
            number(float(value), digits=0, signed=is_difference),
            ha="center",
            va="center",
            fontsize=8.5 if len(values) > 6 else 12,
            color=INK,
        )


def _pairs(
    shares: NDArray[np.float64], control: NDArray[np.float64] | None, classes: Sequence[str]
) -> list[Pair]:
    """Return the pairs of classes that are confused most often."""
    mistakes = shares.copy()
    np.fill_diagonal(mistakes, 0.0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_NUM_PAIRS]
    places = [divmod(int(one), len(classes)) for one in order]
    return [
        Pair(
            true=classes[row],
            predicted=classes[column],
            share=float(mistakes[row, column]),
            control_share=None if control is None else float(control[row, column]),
        )
        for row, column in places
        if mistakes[row, column] > 0
    ]
