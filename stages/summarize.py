"""Gather the trainings in the summary table, measure their predictions, write the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distillation.base.files import new_directory, write_json, write_text
from distillation.base.methods import DEFAULT_METHODS, sort_methods
from distillation.base.params import Params, to_dict
from distillation.base.workspace import Workspace
from distillation.report.inputs import read_inputs
from distillation.report.page import write_report
from distillation.results.measures import predicted_classes
from distillation.results.outcome import read_outcome, write_results
from distillation.runs.seeds import best_by_validation
from stages.entry import run_stage


def main(
    params: Params, workspace: Workspace, *, methods: Sequence[str] | None = None
) -> list[Path]:
    """Write the summary, the measures, the report, and what `dvc metrics` and `dvc plots` show.

    The table is printed. Methods are those the pipeline runs, or those given.
    """
    names = sort_methods([*DEFAULT_METHODS, *params.methods] if methods is None else methods)
    outcome = read_outcome(workspace, names)
    made = {
        name: workspace.metrics / name
        for name in (
            "summary.json",
            "summary.csv",
            "summary.md",
            "measures.json",
            "confusion",
            "methods",
        )
    }
    write_json(made["summary.json"], outcome.summary())
    write_results(made["summary.csv"], outcome, params)
    write_text(made["summary.md"], outcome.to_markdown())
    write_json(made["measures.json"], {**outcome.measures, "data": outcome.source})
    print(outcome.to_text())
    with new_directory(made["confusion"]) as folder:
        for name in names:
            saved_seed = best_by_validation(outcome.methods[name])["seed"]
            table = predicted_classes(outcome.predictions[name], seed=saved_seed)
            table.to_csv(folder / f"{name}.csv", index=False)
    with new_directory(made["methods"]) as folder:
        for name, values in outcome.compared().items():
            write_json(folder / f"{name}.json", values)
    report = workspace.root / "report" / "index.html"
    inputs = read_inputs(workspace, outcome, to_dict(params), is_whole=methods is None)
    write_report(report, inputs)
    return [*made.values(), report]


if __name__ == "__main__":
    run_stage(main)
