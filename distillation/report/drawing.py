"""From a Matplotlib figure to an inline SVG that belongs to the page.

Text stays text, in the page's font, so that it can be searched and that class names in any script
are shown; colours become CSS variables; the same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from markupsafe import Markup, escape
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from distillation.report.palette import INK, LINE, MUTED

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "distillation",
    "text.parse_math": False,  # a class may be called $x$
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
POINTS_PER_INCH = 72  # SVG's units are points, so that figures are measured in the page's pixels
_LARGEST_GROWTH = 1.15
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@contextmanager
def new_figure(width: int, height: int) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure with one axes, in the report's style, to draw on and pass to `to_svg`.

    Args:
        width: in the page's pixels at its natural size.
        height: the same.
    """
    # "default" first: a user's matplotlibrc does not change the report.
    with style.context(["default", _SETTINGS]), warnings.catch_warnings():
        # Matplotlib measures text in its own font; the page has others for what that lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(
            figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH), layout="constrained"
        )
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def whole_ticks(axes: Axes, *, number: int = 6) -> None:
    """Put ticks of the horizontal axis on whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=number, integer=True, min_n_ticks=1))


def use_log_scale(axes: Axes, side: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic, with plain numbers beside it."""
    if side == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def shorten(text: str, length: int) -> str:
    """Cut a label that has no room; its whole name belongs in a tooltip."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def name_ticks(
    axes: Axes, side: Literal["x", "y"], names: Mapping[int, str], length: int, **text: Any
) -> None:
    """Put class names at places of an axis; one that is cut has the whole name as its tooltip.

    Args:
        axes: where.
        side: which axis.
        names: by place.
        length: letters there is room for.
        text: how they are written.
    """
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_ticks(list(names), [shorten(name, length) for name in names.values()], **text)
    for place, tick in zip(names, axis.get_ticklabels(), strict=True):
        if len(names[place]) > length:
            tick.set_gid(f"{side}-{place}")
            tick.set_label(names[place])


def to_svg(figure: Figure, *, name: str, title: str, colors: Mapping[str, str]) -> Markup:
    """Return the figure as SVG to stand in the page.

    Args:
        figure: what `new_figure` gave, inside its block.
        name: unlike that of any other picture of the page.
        title: what the picture shows, for those who do not see it.
        colors: what stand-in colours become.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=POINTS_PER_INCH, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    body = text[text.index(">") + 1 :]
    # Inside tags alone: what stands between them is a label, which may look like one.
    body = re.sub(r"<[^>]*>", lambda tag: _adapt_tag(tag[0], name, colors), body)
    for label in figure.findobj(Text):
        if gid := label.get_gid():
            group = f'<g id="{name}-{gid}">'
            body = body.replace(group, f"{group}<title>{escape(label.get_label())}</title>", 1)
    width, height = (round(side * POINTS_PER_INCH) for side in figure.get_size_inches())
    head = (
        f'<svg class="picture" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}" style="max-width:{round(width * _LARGEST_GROWTH)}px" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return Markup(head + re.sub(r"\n\s*", "\n", body).strip())


def _adapt_tag(tag: str, name: str, colors: Mapping[str, str]) -> str:
    """Make names the picture's own, which repeat from picture to picture, and colours variables."""
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', tag)
    tag = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", tag)
    return re.sub("|".join(map(re.escape, colors)), lambda found: colors[found[0]], tag)
