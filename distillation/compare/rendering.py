"""Reports as text for a terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distillation.compare.report import Line, Report

_NOTHING = "–"
_CELL_METRICS = ("after_acc", "after_f1", "best_acc")


def render(reports: Sequence[Report], notes: Sequence[str], *, form: str) -> str:
    """Give the reports in one of `FORMATS`; CSV has the rows alone."""
    return FORMATS[form](reports, notes)


def _to_text(reports: Sequence[Report], notes: Sequence[str]) -> str:
    blocks = []
    for report in reports:
        rows = [_header(report), *(_cells(line, report.metric) for line in report.lines)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:]), row[-1]])
            for row in rows
        ]
        blocks.append([f"Data: {report.data}", "", *table, "", *report.remarks])
    return "\n\n".join("\n".join(block).rstrip() for block in _with_notes(blocks, notes)) + "\n"


def _to_markdown(reports: Sequence[Report], notes: Sequence[str]) -> str:
    blocks = []
    for report in reports:
        header = _header(report)
        rows = [header, *(_cells(line, report.metric) for line in report.lines)]
        table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        table.insert(1, "|" + "|".join([" --- "] + [" ---: "] * (len(header) - 1)) + "|")
        said = [f"- {remark}" for remark in report.remarks]
        blocks.append([f"**Data: {report.data}**", "", *table, "", *said])
    listed = [f"- {note}" for note in notes]
    return "\n\n".join("\n".join(block).rstrip() for block in _with_notes(blocks, listed)) + "\n"


def _to_csv(reports: Sequence[Report], notes: Sequence[str]) -> str:
    rows = [_record(line, report) for report in reports for line in report.lines]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "sources": "; ".join(row["sources"])} for row in rows)
    return buffer.getvalue()


def _to_json(reports: Sequence[Report], notes: Sequence[str]) -> str:
    content = {
        "tables": [
            {
                "data": report.data,
                "metric": report.metric,
                "rows": [_record(line, report) for line in report.lines],
                "remarks": list(report.remarks),
            }
            for report in reports
        ],
        "notes": list(notes),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: Mapping[str, Callable[[Sequence[Report], Sequence[str]], str]] = {
    "text": _to_text,
    "markdown": _to_markdown,
    "csv": _to_csv,
    "json": _to_json,
}


def _with_notes(blocks: Sequence[list[str]], notes: Sequence[str]) -> list[list[str]]:
    return [*blocks, list(notes)] if notes else list(blocks)


def _header(report: Report) -> list[str]:
    columns = ["method", "n", *_columns(report.metric), "validation_acc"]
    return [*columns, f"difference in {report.metric} [95 % CI]", "verdict"]


def _columns(metric: str) -> tuple[str, ...]:
    return _CELL_METRICS if metric in _CELL_METRICS else (*_CELL_METRICS, metric)


def _cells(line: Line, metric: str) -> list[str]:
    cells = [line.label, str(line.n)]
    for name in _columns(metric):
        text = _number(line.means[name], name)
        if (spread := line.deviations[name]) is not None:
            text += f" ± {_number(spread, name)}"
        cells.append(text)
    validation = line.validation_acc
    cells.append(_NOTHING if validation is None else _number(validation, "validation_acc"))
    return [*cells, _difference(line, metric), line.verdict or _NOTHING]


def _difference(line: Line, metric: str) -> str:
    found = line.difference
    if found is None:
        return _NOTHING
    text = _number(found.mean, metric, sign="+")
    if found.low is not None and found.high is not None:
        low, high = (_number(value, metric, sign="+") for value in (found.low, found.high))
        text += f" [{low}, {high}]"
    return text


def _number(value: float, name: str, *, sign: str = "") -> str:
    digits = 2 if name.endswith("acc") else 4
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0 makes -0.0 a plain zero


def _record(line: Line, report: Report) -> dict[str, Any]:
    """Give a line's numbers as they are, None where there is none."""
    record: dict[str, Any] = {"label": line.label, "method": line.method, "n": line.n}
    for name in ("after_acc", "after_f1", "best_acc", "best_f1"):
        record |= {name: line.means[name], f"{name}_std": line.deviations[name]}
    found = line.difference
    return record | {
        "validation_acc": line.validation_acc,
        "metric": report.metric,
        "reference": line.reference,
        "difference": None if found is None else found.mean,
        "difference_low": None if found is None else found.low,
        "difference_high": None if found is None else found.high,
        "pairs": 0 if found is None else found.n,
        "verdict": line.verdict or None,
        "data": report.data,
        "sources": list(line.sources),
    }
