"""`python -m distillation`: teacher, control and experiments in one process, without DVC.

Every parameter of `params.yaml` is an option; an option left out has the file's value. Options
are checked, and the place for the results too, before any work starts.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillation.allocator import keep_freed_memory
from distillation.options import chosen_arms, params_from, parse_options
from distillation.params import ParamError, Params
from distillation.program import run_program, saying_on_interrupt
from distillation.results import (
    check_results_path,
    remarks,
    summary_table,
    to_text,
    write_results,
)

_NOTHING_KEPT = (
    "nothing was kept; with --results-path every finished arm is, with --save-teacher the teacher"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, as `distillation.program` counts."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    options = parse_options(arguments)
    keep_freed_memory()
    return run_program(lambda: _check_and_run(options), if_interrupted=_NOTHING_KEPT)


def _check_and_run(options: argparse.Namespace) -> None:
    if options.results_path is not None:
        check_results_path(options.results_path)
    if options.save_teacher is not None and options.save_teacher.suffix != ".safetensors":
        raise ParamError(
            f"save-teacher: got {str(options.save_teacher)!r}; allowed ending: .safetensors"
        )
    kept: dict[Path, str] = {}
    with saying_on_interrupt(lambda: _describe_kept(kept)):
        _run(options, params_from(options), kept)


def _describe_kept(kept: Mapping[Path, str]) -> str:
    return "; ".join(f"{path} holds {what}" for path, what in kept.items())


def _run(options: argparse.Namespace, params: Params, kept: dict[Path, str]) -> None:
    """Train and compare; files that are written are added to `kept`, with what they hold."""
    # Imported late: --help and a wrong option should not wait for torch.
    from distillation.comparison import (
        make_setting,
        run_students,
        start_comparison,
        train_teacher,
    )
    from distillation.data.sources import prepare
    from distillation.model_names import check_model_name
    from distillation.models import save_weights
    from distillation.runtime import make_runtime
    from distillation.training.loop import EpochRecord

    for key in ("teacher", "student"):
        check_model_name(getattr(params, key), key=key)
    runtime = make_runtime(
        precision=params.precision, compiles=params.compile, device_name=options.device
    )

    def show_epoch(arm: str, record: EpochRecord) -> None:
        num_epochs = params.teacher_epochs if arm == "teacher" else params.epochs
        print(record.to_line(arm, num_epochs=num_epochs), flush=True)

    def show_arm(arm: str) -> None:
        for result in comparison.arms[arm]:
            name = arm if len(params.seeds) == 1 else f"{arm} seed {result.seed}"
            print(
                f"{name} final: {_describe(dataclasses.asdict(result.after))}; best epoch "
                f"{result.best_epoch}: {_describe(dataclasses.asdict(result.best))}",
                flush=True,
            )
        if options.results_path is not None:
            # Whatever comes: an interrupted run keeps the arms it has finished.
            write_results(
                options.results_path,
                summary_table(comparison.records()),
                {**comparison.details(), "remarks": said()},
            )
            kept[options.results_path] = ", ".join(comparison.arms)

    def said() -> list[str]:
        teacher = comparison.baseline()["teacher"]
        return remarks(comparison.records(), teacher, source=data.source)

    data = prepare(params, raw_directory=options.raw_directory)
    setting = make_setting(params, data, runtime)
    teacher = train_teacher(setting, on_epoch=show_epoch)
    if options.save_teacher is not None:
        save_weights(teacher, options.save_teacher, class_names=data.class_names)
        kept[options.save_teacher] = "the trained teacher"
    comparison = start_comparison(setting, teacher=teacher)
    for role, metrics in comparison.baseline().items():
        print(f"{role} {metrics['model']} before distillation: {_describe(metrics)}", flush=True)
    run_students(
        comparison,
        setting,
        arms=chosen_arms(options.experiment, params),
        teacher=teacher,
        on_epoch=show_epoch,
        on_arm=show_arm,
    )
    table = to_text(summary_table(comparison.records()))
    print(f"\n{table}\nData: {data.source}.", *said(), sep="\n")
    if options.results_path is not None:
        print(f"Results written to {options.results_path}.")


def _describe(metrics: dict[str, Any]) -> str:
    return (
        f"loss {metrics['loss']:.4f}, accuracy {metrics['acc']:.2f} %, "
        f"macro-F1 {metrics['f1']:.4f} on the test set"
    )
