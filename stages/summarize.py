"""Gather the arms' metrics in the summary table and say what it shows."""

from __future__ import annotations

import json
from typing import Any

from distillation.files import write_json, write_text
from distillation.params import Params
from distillation.results import (
    ARMS,
    remarks,
    summary_table,
    to_csv,
    to_markdown,
    to_records,
    to_text,
)
from stages.workspace import METRICS, run_stage


def main(params: Params) -> None:
    """Write `metrics/summary.json`, `.csv` and `.md`, and print the table."""
    arms = {name: _read(name) for name in ARMS}
    baseline = _read("baseline")
    source = baseline["data"]
    table = summary_table(arms)
    said = remarks(arms, baseline["teacher"], source=source)
    teacher_line = (
        f"Teacher {baseline['teacher']['model']}: {baseline['teacher']['acc']:.2f} % accuracy, "
        f"macro-F1 {baseline['teacher']['f1']:.4f}. Data: {source}."
    )
    write_json(
        METRICS / "summary.json",
        {
            "summary": to_records(table),
            "teacher": baseline["teacher"],
            "student": baseline["student"],
            "data": source,
            "remarks": said,
        },
    )
    write_text(METRICS / "summary.csv", to_csv(table, source=source))
    write_text(
        METRICS / "summary.md",
        "\n".join([to_markdown(table), teacher_line, "", *(f"- {line}" for line in said), ""]),
    )
    print(to_text(table), teacher_line, *said, sep="\n")


def _read(name: str) -> dict[str, Any]:
    return json.loads((METRICS / f"{name}.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_stage(main)
