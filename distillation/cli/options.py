"""The options of `python -m distillation`: what to run, and one option for every parameter.

Groups, descriptions and allowed values are read from `Params`, defaults from the parameter file, so
that the help says what is true. Running is `cli`'s business.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from distillation.base.methods import (
    CONTROL,
    DEFAULT_METHODS,
    EXPERIMENTS,
    further_methods,
    sort_methods,
)
from distillation.base.params import ParamError, Params, check_paths, describe, load_params

_PROGRAM = "python -m distillation"

_EPILOG = """\
Parameters left out have the value they have in the parameter file. With --teacher-checkpoint the
teacher is taken as it is, unless --teacher-epochs says otherwise.

further commands:
  python -m distillation compare --help   compare finished runs, methods and seeds
  python -m distillation predict --help   classify images with an exported student

exit status: 0 done, 1 a mistake that the message names, 2 wrong usage, 130 after Ctrl-C
"""

_NUMBERS = {name.removeprefix("exp"): name for name in EXPERIMENTS}
_CHOICES = (*_NUMBERS, *EXPERIMENTS, "all", CONTROL, "methods", *further_methods())


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; ends the program with status 2 where it is wrong, 0 after the help."""
    # The help gives the defaults of the file that is chosen, so the choice is read first.
    first = argparse.ArgumentParser(prog=_PROGRAM, add_help=False, allow_abbrev=False)
    _add_params_option(first)
    chosen, _ = first.parse_known_args(arguments)
    return build_parser(chosen.params).parse_args(arguments)


def params_from(options: argparse.Namespace) -> Params:
    """Give the parameters of the chosen file with those of the command line in their place.

    Raises:
        ParamError: one of them is wrong.
    """
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


def chosen_methods(chosen: Sequence[str], params: Params) -> list[str]:
    """Give the methods that the words of `--experiment` mean, in the order of the table."""
    groups = {"all": (*DEFAULT_METHODS, *params.methods), "methods": further_methods()}
    names = [groups.get(choice, (_NUMBERS.get(choice, choice),)) for choice in chosen]
    return sort_methods({name for group in names for name in group})


def build_parser(params_path: Path = Path("params.yaml")) -> argparse.ArgumentParser:
    """Build the parser: a few options of its own, and one for every parameter.

    Args:
        params_path: the parameter file whose values the help gives as defaults.
    """
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        usage=f"{_PROGRAM} [--experiment NAME ...] [--OPTION VALUE ...]",
        description="Distil a timm teacher into a timm student and compare the experiments.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_run_options(parser)
    defaults, problem = _defaults(params_path)
    docs, groups = _field_docs(), _field_groups()
    sections = {title: parser.add_argument_group(title) for title in dict.fromkeys(groups.values())}
    next(iter(sections.values())).description = (
        problem or f"Defaults of this and the following groups are those of {params_path}."
    )
    for field in dataclasses.fields(Params):
        text = f"{docs[field.name]} Allowed: {describe(field.name)}."
        if field.name in defaults:
            text += f" (default: {defaults[field.name]})"
        sections[groups[field.name]].add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=f"param_{field.name}",
            default=argparse.SUPPRESS,
            metavar="VALUE",
            help=text.replace("`", "").replace("%", "%%"),
        )
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    run = parser.add_argument_group("what to run")
    run.add_argument(
        "--experiment",
        nargs="+",
        choices=_CHOICES,
        metavar="NAME",
        default=["all"],
        help=f"methods to run: {', '.join(_CHOICES)}. control is the student trained by labels "
        f"alone; all is control, {', '.join(_NUMBERS)} and what the parameter methods names; "
        "methods is every further method (default: all)",
    )
    run.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
    run.add_argument(
        "--results-path",
        type=Path,
        metavar="FILE",
        help="write results here: .json for everything, .csv for the summary table",
    )
    run.add_argument(
        "--run-dir",
        type=Path,
        metavar="FOLDER",
        help="keep everything the pipeline's stages write in this folder: models, metrics, "
        "predictions, the report. The same command goes on there after an interruption, and "
        "trains nothing twice (default: a temporary folder)",
    )
    run.add_argument(
        "--save-teacher",
        type=Path,
        metavar="FILE",
        help="keep the trained teacher's weights (.safetensors)",
    )
    run.add_argument(
        "--raw-directory",
        type=Path,
        metavar="FOLDER",
        default=Path("data/raw"),
        help="where archives of CIFAR-10 lie (default: %(default)s)",
    )
    _add_params_option(run)


def _add_params_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--params",
        type=Path,
        metavar="FILE",
        default=Path("params.yaml"),
        help="the parameter file (default: %(default)s)",
    )


def _defaults(path: Path) -> tuple[dict[str, str], str]:
    """Give the values of a parameter file as one writes them; else none, and what is wrong."""
    try:
        values = dataclasses.asdict(load_params(path))
    except ParamError as error:
        return {}, f"Defaults are not shown: {error}"
    return {name: _to_option(value) for name, value in values.items()}, ""


def _to_option(value: Any) -> str:
    """Undo `_parse`."""
    if isinstance(value, str):
        return value
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def _parse(text: str) -> Any:
    """Read a value as the parameter file would; what is no YAML stays a text, to be refused."""
    try:
        return yaml.safe_load(text) if text else text
    except yaml.YAMLError:
        return text


def _field_groups() -> dict[str, str]:
    """Read, for each field of `Params`, the comment that stands above its section."""
    title, groups = "", {}
    for line in inspect.getsource(Params).splitlines():
        if found := re.match(r" {4}# (.+)", line):
            title = found[1][0].lower() + found[1][1:]
        elif found := re.match(r" {4}(\w+): ", line):
            groups[found[1]] = title
    return groups


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
