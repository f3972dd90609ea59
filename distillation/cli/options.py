"""The options of `python -m distillation`: what to run, and one option for every parameter.

Sections, descriptions and allowed values are those of `Params`, defaults those of the parameter
file, so that the help says what is true. Running is `train`'s business.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from distillation.base.command import positive
from distillation.base.methods import (
    CONTROL,
    DEFAULT_METHODS,
    EXPERIMENTS,
    further_methods,
    sort_methods,
)
from distillation.base.param_types import Section
from distillation.base.params import (
    PARAM_NAMES,
    PATH_KEYS,
    ParamError,
    Params,
    check_paths,
    describe,
    load_params,
    to_dict,
)
from distillation.base.yaml_text import YamlError, parse_yaml

PACKAGED_PARAMS = Path(__file__).parents[1] / "params.yaml"
"""The project's parameter file, which comes with the package."""

_PROGRAM = "python -m distillation"

_EPILOG = """\
Parameters left out have the value they have in the parameter file. With --teacher-checkpoint the
teacher is taken as it is, unless --teacher-epochs says otherwise.

further commands:
  python -m distillation compare --help   compare finished runs, methods and seeds
  python -m distillation predict --help   classify images with an exported student
  python -m distillation sweep --help     run variants on this machine or a Ray cluster

exit status: 0 done, 1 a mistake that the message names, 2 wrong usage, 130 after Ctrl-C
"""

_NUMBERS = {name.removeprefix("exp"): name for name in EXPERIMENTS}
_TEXTS = ("teacher", "student", "teacher_optimizer", "optimizer", "export_method", *PATH_KEYS)
_CHOICES = (*_NUMBERS, *EXPERIMENTS, "all", CONTROL, "methods", *further_methods())


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; ends the program with status 2 where it is wrong, 0 after the help."""
    # The help gives the defaults of the file that is chosen, so the choice is read first.
    first = argparse.ArgumentParser(prog=_PROGRAM, add_help=False, allow_abbrev=False)
    _add_params_option(first)
    chosen, _ = first.parse_known_args(arguments)
    return build_parser(chosen.params).parse_args(arguments)


def params_from(options: argparse.Namespace) -> Params:
    """Return the parameters of the chosen file with those of the command line in their place.

    Raises:
        ParamError: one or several of them are wrong.
    """
    given = {
        name: _parse(name, text)
        for name in PARAM_NAMES
        if (text := getattr(options, f"param_{name}", None)) is not None
    }
    if given.get("teacher_checkpoint") is not None:
        given.setdefault("teacher_epochs", 0)
    return check_paths(load_params(options.params, **given))


def chosen_methods(chosen: Sequence[str], params: Params) -> list[str]:
    """Return the methods that the words of `--experiment` mean, in the order of the table."""
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
    note: str | None = (
        problem or f"Defaults of this and the following groups are those of {params_path}."
    )
    for name, field in Params.model_fields.items():
        if title := next((m.title for m in field.metadata if isinstance(m, Section)), None):
            group = parser.add_argument_group(title, note)
            note = None
        text = f"{' '.join(str(field.description).split())} Allowed: {describe(name)}."
        if name in defaults:
            text += f" (default: {defaults[name]})"
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"param_{name}",
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
        "--processes",
        type=positive,
        metavar="N",
        help="seeds of a method that are trained at once, which changes no result; each takes "
        "about 1 GB of memory (default: DISTILLATION_PROCESSES, or else what the GPUs or cores "
        "can do)",
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
        default=_default_params(),
        help="the parameter file (default: params.yaml in this folder, or else that of the "
        "package; now: %(default)s)",
    )


def _default_params() -> Path:
    here = Path("params.yaml")
    return here if os.path.lexists(here) else PACKAGED_PARAMS


def _defaults(path: Path) -> tuple[dict[str, str], str]:
    """Return the values of a parameter file as one writes them; else none, and what is wrong."""
    try:
        values = to_dict(load_params(path))
    except ParamError as error:
        return {}, f"Defaults are not shown: {error}"
    return {name: _to_option(value) for name, value in values.items()}, ""


def _to_option(value: Any) -> str:
    """Undo `_parse`."""
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def _parse(name: str, text: str) -> Any:
    """Read a value as the parameter file would; names and paths are texts, whatever YAML says."""
    if not text or (name in _TEXTS and text != "null"):
        return text
    try:
        return parse_yaml(text)
    except YamlError:
        return text  # which is refused with the parameter's name
