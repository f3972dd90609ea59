"""Put all parts into the template and write the page, whole or not at all."""

from __future__ import annotations

import base64
import dataclasses
import re
from pathlib import Path
from typing import Any

import jinja2

from distillation.base.files import write_text
from distillation.base.methods import CONTROL
from distillation.base.workspace import TEACHER
from distillation.report.calibration import draw_calibration
from distillation.report.confusion import draw_confusion
from distillation.report.costs import describe_equal_cost, draw_costs
from distillation.report.curves import draw_curves
from distillation.report.data_card import make_data_card
from distillation.report.examples import find_examples
from distillation.report.inputs import Inputs
from distillation.report.palette import make_styles, stand_ins
from distillation.report.recall import draw_recalls
from distillation.report.recommendation import Recommendation, recommend
from distillation.report.reproduction import environment_table, flatten, reproduce_command
from distillation.report.summary import choose_columns, make_rows, number, share_of_lead
from distillation.report.tradeoff import Tradeoff, draw_tradeoff
from distillation.results.commits import describe_code, newest_commit, setup_commands
from distillation.results.intervals import p_text
from distillation.results.verdict import EPOCHS, leads_over_control
from distillation.runs.seeds import combine_seeds

_TEMPLATE = "template.html"
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<circle cx="6" cy="6" r="5" fill="#8a94a3"/><circle cx="12" cy="12" r="3" fill="#0072b2"/>'
    "</svg>"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A number that stands large at the top of the page."""

    label: str
    value: str
    note: str = ""


def write_report(path: Path, inputs: Inputs) -> None:
    """Write the page; the same inputs give the same bytes."""
    write_text(path, render(inputs))


def render(inputs: Inputs) -> str:
    """Return the page as HTML."""
    styles = make_styles(inputs.methods)
    colors = stand_ins(styles.values())
    chosen = recommend(inputs.methods)
    tradeoff = draw_tradeoff(inputs, styles, colors)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["typeset"] = typeset
    environment.filters["thousands"] = lambda value: f"{value:,.0f}"
    return environment.get_template(_TEMPLATE).render(
        icon=base64.b64encode(_ICON.encode()).decode(),
        inputs=inputs,
        control=CONTROL,
        styles=styles,
        shown_styles=[styles[name] for name in (TEACHER, *inputs.methods)],
        chosen=chosen,
        figures=_figures(inputs, chosen, tradeoff),
        columns=choose_columns(inputs),
        rows=make_rows(inputs),
        remarks=inputs.outcome.warnings,
        curves=draw_curves(inputs, styles, colors),
        tradeoff=tradeoff,
        costs=draw_costs(inputs, styles, colors),
        equal_cost=None
        if inputs.costs is None or inputs.teacher_began_elsewhere
        else describe_equal_cost(inputs.costs, chosen.shown_method),
        confusion=draw_confusion(inputs, styles, colors, shown_method=chosen.shown_method),
        recalls=draw_recalls(inputs, styles, colors, shown_method=chosen.shown_method),
        examples=find_examples(inputs, method=chosen.shown_method),
        reliabilities=draw_calibration(inputs, styles, colors),
        data_card=make_data_card(inputs),
        parameters=flatten(inputs.parameters),
        environment=environment_table(inputs.environments),
        code=describe_code(inputs.environments),
        commands=[
            *setup_commands(newest_commit(inputs.environments)),
            reproduce_command(inputs.parameters, inputs.environments),
        ],
    )


def typeset(text: str) -> str:
    """Return numbers in a sentence a true minus sign, and keep their units on their line."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "−", text)
    return re.sub(r"(?<=\d) (?=%)|(?<=n) (?==)|(?<==) (?=\d)", "\u00a0", text)


def _figures(inputs: Inputs, chosen: Recommendation, tradeoff: Tradeoff | None) -> list[Figure]:
    """Return the few numbers that a reader takes away."""
    other = CONTROL if chosen.method != CONTROL else chosen.shown_method
    teacher = inputs.baseline["teacher"]
    figures = [
        *(
            _accuracy(name, combine_seeds(inputs.methods[name]))
            for name in (chosen.method, other)
            if name is not None and name in inputs.methods
        ),
        Figure(label="teacher", value=f"{teacher['acc']:.2f} %", note=teacher["model"]),
        _majority(inputs),
        None if chosen.shown_method is None else _over_control(inputs, chosen.shown_method),
        None if chosen.shown_method is None else _share_of_lead(inputs, chosen.shown_method),
        None if tradeoff is None else _size(tradeoff),
    ]
    return [figure for figure in figures if figure is not None]


def _accuracy(method: str, values: dict[str, Any]) -> Figure:
    spread = values["best_acc_std"]
    seeds = "1 seed" if values["n"] == 1 else f"{values['n']} seeds"
    return Figure(
        label=method,
        value=f"{values['best_acc']:.2f} %",
        note=f"{seeds if spread is None else f'± {spread:.2f}, {seeds}'}, {EPOCHS}",
    )


def _majority(inputs: Inputs) -> Figure | None:
    balance = inputs.baseline["balance"]["test"]
    if not balance["is_notable"]:
        return None
    return Figure(
        label="majority class",
        value=f"{balance['majority_share']:.2f} %",
        note=f"always predicting {balance['majority_class']}",
    )


def _over_control(inputs: Inputs, method: str) -> Figure | None:
    lead = leads_over_control(inputs.methods).get(method)
    if lead is None:
        return None
    over = lead.over
    interval = "one seed, no interval" if over.n == 1 else "the same for each seed, no interval"
    if lead.p is not None:
        bounds = (number(bound, signed=True) for bound in (over.low, over.high))
        interval = f"95 %: {' … '.join(bounds)}; {p_text(lead.p)}"
    return Figure(
        label=f"{method} over the control",
        value=number(over.mean, signed=True),
        note=f"points {EPOCHS}; {interval}",
    )


def _share_of_lead(inputs: Inputs, method: str) -> Figure | None:
    share = share_of_lead(inputs, method)
    if share is None:
        return None
    return Figure(
        label="of the teacher’s lead closed",
        value=f"{number(share, digits=0)} %",
        note=f"by {method}, {EPOCHS}",
    )


def _size(tradeoff: Tradeoff) -> Figure | None:
    student = next((row for row in tradeoff.rows if row.name == "student"), None)
    if student is None or student.times_smaller is None:
        return None
    return Figure(
        label="smaller than the teacher",
        value=f"{student.times_smaller:.1f} ×",
        note=f"{student.values['file_bytes'] / 1e6:.1f} MB",
    )
