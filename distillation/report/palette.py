"""The style of a method: the same colour and dashes in every picture, in light and in dark.

Pictures are drawn with stand-in colours that `drawing` turns into CSS variables, so that one
picture serves both colour schemes. The hues follow Okabe and Ito (2008) and can be told apart by
colour-blind readers; where they come round again, dashes differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from distillation.base.methods import CONTROL, DEFAULT_METHODS, further_methods, sort_methods
from distillation.report.inputs import TEACHER

_DISTILLED_HUES = (  # light, dark
    ("#0072b2", "#56b4f5"),  # blue
    ("#d55e00", "#ff9350"),  # vermilion
    ("#008a63", "#2fcf9f"),  # green
    ("#b0508f", "#ea94cb"),  # purple
    ("#b07d00", "#f2bd3d"),  # amber
    ("#2b93c9", "#9bdcff"),  # sky
    ("#5b4bb0", "#b3a6ff"),  # violet
    ("#7a5c3e", "#d0ac88"),  # brown
)
_CONTROL_HUE = ("#6b7280", "#a3acba")
_TEACHER_HUE = ("#1b1f24", "#f0f2f5")
_DASHES = ("", "5 2", "2 1.6", "7 2 1.6 2")

INK, MUTED, LINE, SURFACE = "#010101", "#010102", "#010103", "#010104"
"""Stand-ins for text, secondary text, grid lines and the page."""
_FIRST_ARM = 0xA10000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """How a method is drawn."""

    name: str
    color: str
    """A stand-in, as Matplotlib takes it; `drawing` makes `var(variable)` of it."""
    variable: str
    """The CSS variable that holds the colour."""
    hues: tuple[str, str]
    """The colour on a light and on a dark page."""
    dash: str
    """As SVG's stroke-dasharray takes it; empty for a whole line."""
    description: str

    @property
    def linestyle(self) -> tuple[float, tuple[float, ...]] | str:
        """Return the dashes as Matplotlib takes them."""
        return (0.0, tuple(map(float, self.dash.split()))) if self.dash else "-"


_DESCRIPTIONS = {
    TEACHER: "the large model",
    CONTROL: "labels alone",
    "exp1": "softened logits",
    "exp2": "logits and pooled features (cosine)",
    "exp3": "logits and feature maps (regression)",
    "attention": "logits and attention maps",
    "dist": "correlations between and within classes",
    "dkd": "decoupled logits",
    "exp3_scaled": "logits and normalised feature maps, ramped",
    "similarity": "logits and similarities between images",
}


def make_styles(methods: Iterable[str]) -> dict[str, Style]:
    """Return the styles of the teacher and of methods, by name.

    A method the project knows always looks the same, whatever else was run; methods of unknown
    names come after these.
    """
    known = [name for name in (*DEFAULT_METHODS, *further_methods()) if name != CONTROL]
    given = sort_methods(methods)
    order = known + [name for name in given if name not in known and name != CONTROL]
    return {name: _make_style(name, order) for name in (TEACHER, *given)}


def _make_style(name: str, order: list[str]) -> Style:
    number, hues, dash = _place(name, order)
    return Style(
        name=name,
        color=f"#{_FIRST_ARM + number:06x}",
        variable=f"--method-{number}",
        hues=hues,
        dash=dash,
        description=_DESCRIPTIONS.get(name, ""),
    )


def _place(name: str, order: list[str]) -> tuple[int, tuple[str, str], str]:
    if name == TEACHER:
        return 0, _TEACHER_HUE, "1.2 1.8"
    if name == CONTROL:
        return 1, _CONTROL_HUE, ""
    position = order.index(name)
    # Three whole lines for the three experiments; the dashes change with every hue after them.
    dash = _DASHES[0] if position < 3 else _DASHES[1 + (position - 3) % 3]
    return 2 + position, _DISTILLED_HUES[position % len(_DISTILLED_HUES)], dash


def stand_ins(styles: Iterable[Style]) -> dict[str, str]:
    """Return what every stand-in colour becomes in CSS."""
    page = {INK: "--ink", MUTED: "--muted", LINE: "--line", SURFACE: "--surface"}
    methods = {style.color: style.variable for style in styles}
    return {color: f"var({variable})" for color, variable in {**page, **methods}.items()}
