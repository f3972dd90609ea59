"""Gather the arms' trainings in the summary table, measure their predictions, say what it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from distillation.files import new_directory, write_json, write_text
from distillation.measures import predicted_classes
from distillation.methods import ARMS, sort_arms
from distillation.params import PARAM_NAMES, Params
from distillation.predictions import load_predictions
from distillation.report.inputs import read_inputs
from distillation.report.page import write_report
from distillation.results import (
    measure_arms,
    remarks,
    summary_table,
    to_csv,
    to_markdown,
    to_records,
    to_text,
)
from distillation.seeds import best_by_validation
from stages.workspace import METRICS, PREDICTIONS, PREPARED, SEEDS, run_stage

_REPORT = Path("report/index.html")
_CONFUSION = METRICS / "confusion"


def main(params: Params) -> list[Path]:
    """Write the summary, the measures, what `dvc plots` draws confusions from, and the report.

    The table is printed.
    """
    names = sort_arms([*ARMS, *params.methods])
    arms = {name: _read(SEEDS / f"{name}.json")["seeds"] for name in names}
    baseline = _read(METRICS / "baseline.json")
    source = baseline["data"]
    table = summary_table(arms)
    predictions = {
        name: load_predictions(PREDICTIONS / f"{name}.npz") for name in ("teacher", *names)
    }
    measures = measure_arms(predictions)
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
    write_json(METRICS / "measures.json", {**measures, "data": source})
    write_text(METRICS / "summary.csv", to_csv(table, source=source))
    write_text(
        METRICS / "summary.md",
        "\n".join([to_markdown(table), teacher_line, "", *(f"- {line}" for line in said), ""]),
    )
    print(to_text(table), teacher_line, *said, sep="\n")
    with new_directory(_CONFUSION) as folder:
        for name in names:
            saved_seed = best_by_validation(arms[name])["seed"]
            pairs = predicted_classes(predictions[name], seed=saved_seed)
            pd.DataFrame(pairs, columns=["actual", "predicted"]).to_csv(
                folder / f"{name}.csv", index=False
            )
    inputs = read_inputs(
        arms=names,
        parameters={name: getattr(params, name) for name in PARAM_NAMES},
        metrics=METRICS,
        predictions=PREDICTIONS,
        prepared=PREPARED,
    )
    write_report(_REPORT, inputs)
    tables = ("summary.json", "summary.csv", "summary.md", "measures.json")
    return [*(METRICS / name for name in tables), _CONFUSION, _REPORT]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_stage(main)
