"""Tables as text for a terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence

from tabulate import tabulate

from distillation.compare.report import Line, Table
from distillation.results.intervals import p_text
from distillation.results.markdown import escape, escape_sentence

_NOTHING = "–"


def _to_text(tables: Sequence[Table], notes: Sequence[str]) -> str:
    blocks = [[f"Data: {t['data']}", "", _draw(t, "plain"), "", *t["remarks"]] for t in tables]
    return _join([*blocks, notes])


def _to_markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    blocks = [
        [f"**Data: {escape(t['data'])}**", "", _draw(t, "pipe"), "", *_list(t["remarks"])]
        for t in tables
    ]
    return _join([*blocks, _list(notes)])


def _list(sentences: Sequence[str]) -> list[str]:
    return [f"- {escape_sentence(sentence)}" for sentence in sentences]


def _join(blocks: Sequence[Sequence[str]]) -> str:
    return "\n\n".join("\n".join(block).rstrip() for block in blocks if block) + "\n"


def _to_csv(tables: Sequence[Table], notes: Sequence[str]) -> str:
    lines = [line for table in tables for line in table["rows"]]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**line, "sources": "; ".join(line["sources"])} for line in lines)
    return buffer.getvalue()


def _to_json(tables: Sequence[Table], notes: Sequence[str]) -> str:
    content = {"tables": tables, "notes": notes}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: Mapping[str, Callable[[Sequence[Table], Sequence[str]], str]] = {
    "text": _to_text,
    "markdown": _to_markdown,
    "csv": _to_csv,
    "json": _to_json,
}
"""What returns tables and notes as text; CSV has the rows alone."""


def _draw(table: Table, form: str) -> str:
    metrics = dict.fromkeys(("after_acc", "after_f1", "best_acc", table["metric"]))
    difference = f"difference in {table['metric']} [95 % CI]"
    headers = ["method", "n", *metrics, "validation_acc", difference, "verdict"]
    rows = [
        [
            escape_sentence(line["label"]).replace("|", "\\|") if form == "pipe" else line["label"],
            line["n"],
            *(_measured(line, metric) for metric in metrics),
            _number(line["validation_acc"], "validation_acc"),
            _difference(line, table["metric"]),
            line["verdict"] or _NOTHING,
        ]
        for line in table["rows"]
    ]
    align = ["left", *["right"] * (len(headers) - 2), "left"]
    return tabulate(rows, headers, tablefmt=form, disable_numparse=True, colalign=align)


def _measured(line: Line, metric: str) -> str:
    text, spread = _number(line[metric], metric), line[f"{metric}_std"]
    return text if spread is None else f"{text} ± {_number(spread, metric)}"


def _difference(line: Line, metric: str) -> str:
    keys = ("difference", "difference_low", "difference_high")
    mean, low, high = (_number(line[key], metric, sign="+") for key in keys)
    return mean if line["p"] is None else f"{mean} [{low}, {high}], {p_text(line['p'])}"


def _number(value: float | None, name: str, *, sign: str = "") -> str:
    if value is None:
        return _NOTHING
    digits = 2 if name.endswith("acc") else 4
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0 makes -0.0 a plain zero
