"""`python -m distillation`: teacher, control and experiments in one process, without DVC.

Every parameter of `params.yaml` is an option; an option left out has the file's value. Options
are checked, and the place for the results too, before any work starts.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from distillation.allocator import keep_freed_memory
from distillation.errors import DistillationError
from distillation.methods import ARMS, CONTROL, EXPERIMENTS, find_methods, sort_arms
from distillation.params import ParamError, Params, check_paths, describe, load_params
from distillation.results import (
    check_results_path,
    remarks,
    summary_table,
    to_text,
    write_results,
)

_CHOICES = ("1", "2", "3", "all", CONTROL, "methods", *find_methods())


def build_parser() -> argparse.ArgumentParser:
    """Build the parser: a few options of its own, and one for every parameter."""
    parser = argparse.ArgumentParser(
        prog="python -m distillation",
        description="Distil a timm teacher into a timm student and compare the experiments.",
        epilog="Parameters left out have the value they have in the parameter file. "
        "`python -m distillation compare --help` is about comparing finished runs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    run = parser.add_argument_group("what to run")
    run.add_argument(
        "--experiment",
        nargs="+",
        choices=_CHOICES,
        default=["all"],
        help="experiments to run; control is the student trained by labels alone, "
        "all is control, 1, 2, 3 and what the parameter methods names; methods is every further "
        "method, by name one of them",
    )
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    run.add_argument(
        "--results-path",
        type=Path,
        help="write results here: .json for everything, .csv for the summary table",
    )
    run.add_argument(
        "--save-teacher", type=Path, help="keep the trained teacher's weights (.safetensors)"
    )
    run.add_argument(
        "--raw-directory",
        type=Path,
        default=Path("data/raw"),
        help="where archives of CIFAR-10 lie",
    )
    run.add_argument("--params", type=Path, default=Path("params.yaml"), help="the parameter file")
    parameters = parser.add_argument_group(
        "parameters",
        "With --teacher-checkpoint the teacher is taken as it is, unless --teacher-epochs says "
        "otherwise.",
    )
    docs = _field_docs()
    for field in dataclasses.fields(Params):
        parameters.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=f"param_{field.name}",
            default=argparse.SUPPRESS,
            metavar="VALUE",
            help=f"{docs[field.name]} Allowed: {describe(field.name)}.".replace("`", "").replace(
                "%", "%%"
            ),
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 for a mistake the user can put right."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    options = build_parser().parse_args(arguments)
    keep_freed_memory()
    try:
        if options.results_path is not None:
            check_results_path(options.results_path)
        if options.save_teacher is not None and options.save_teacher.suffix != ".safetensors":
            raise ParamError(
                f"save-teacher: got {str(options.save_teacher)!r}; allowed ending: .safetensors"
            )
        _run(options, _params_from(options))
    except DistillationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _params_from(options: argparse.Namespace) -> Params:
    given = {
        key.removeprefix("param_"): _parse(value)
        for key, value in vars(options).items()
        if key.startswith("param_")
    }
    # Names and paths are texts, whatever YAML would make of them.
    for key in ("dataset", "teacher", "student", "teacher_checkpoint", "student_checkpoint"):
        if given.get(key) is not None:
            given[key] = getattr(options, f"param_{key}")
    if given.get("teacher_checkpoint") is not None:
        given.setdefault("teacher_epochs", 0)
    return check_paths(load_params(options.params, **given))


def _parse(text: str) -> Any:
    """Read a value as the parameter file would; what is no YAML stays a text, to be refused."""
    try:
        return yaml.safe_load(text) if text else text
    except yaml.YAMLError:
        return text


def _run(options: argparse.Namespace, params: Params) -> None:
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

    def said() -> list[str]:
        teacher = comparison.baseline()["teacher"]
        return remarks(comparison.records(), teacher, source=data.source)

    data = prepare(params, raw_directory=options.raw_directory)
    setting = make_setting(params, data, runtime)
    teacher = train_teacher(setting, on_epoch=show_epoch)
    if options.save_teacher is not None:
        save_weights(teacher, options.save_teacher, class_names=data.class_names)
    comparison = start_comparison(setting, teacher=teacher)
    for role, metrics in comparison.baseline().items():
        print(f"{role} {metrics['model']} before distillation: {_describe(metrics)}", flush=True)
    run_students(
        comparison,
        setting,
        arms=_arms(options.experiment, params),
        teacher=teacher,
        on_epoch=show_epoch,
        on_arm=show_arm,
    )
    table = to_text(summary_table(comparison.records()))
    print(f"\n{table}\nData: {data.source}.", *said(), sep="\n")
    if options.results_path is not None:
        print(f"Results written to {options.results_path}.")


def _arms(chosen: Sequence[str], params: Params) -> list[str]:
    names = dict(zip("123", EXPERIMENTS, strict=True))
    groups = {"all": (*ARMS, *params.methods), "methods": find_methods()}
    return sort_arms(
        {arm for choice in chosen for arm in groups.get(choice, (names.get(choice, choice),))}
    )


def _describe(metrics: dict[str, Any]) -> str:
    return (
        f"loss {metrics['loss']:.4f}, accuracy {metrics['acc']:.2f} %, "
        f"macro-F1 {metrics['f1']:.4f} on the test set"
    )


def _field_docs() -> dict[str, str]:
    """Read the docstring that stands under each field of `Params`."""
    body = ast.parse(inspect.getsource(Params)).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for field, doc in itertools.pairwise(body.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(doc, ast.Expr)
            and isinstance(doc.value, ast.Constant)
        ):
            docs[field.target.id] = " ".join(str(doc.value.value).split())
    return docs
