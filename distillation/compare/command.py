"""The command line of `python -m distillation compare`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from distillation.base.errors import DistillationError
from distillation.base.files import write_text
from distillation.base.printable import printable_lines
from distillation.compare.grouping import group_runs
from distillation.compare.records import METRICS, CompareError
from distillation.compare.rendering import FORMATS
from distillation.compare.report import make_tables
from distillation.compare.sources import read_sources

_EPILOG = """\
examples:
  python -m distillation compare                       the work tree's metrics/
  python -m distillation compare --experiments         and every DVC experiment
  python -m distillation compare main alpha-07         a branch and an experiment
  python -m distillation compare a.json b.json         two results files
  python -m distillation compare --reference exp1      everything against experiment 1
  dvc exp show --json | python -m distillation compare -
  python -m distillation compare --experiments --format csv --output runs.csv

Runs whose parameters differ in seed and seeds alone are one row, unless one seed has two teachers;
what cannot matter to a method, by dvc.yaml, does not set its rows apart. Differences are paired: by
seed (data and teacher) and training seed. A name that is a file or folder and a revision too means
the file or folder; write refs/heads/NAME for the branch.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(
        prog="python -m distillation compare",
        description="Compare the results of any number of runs, with paired 95 % confidence "
        "intervals, and p corrected for the number of comparisons.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="a results file of python -m distillation --results-path; a metrics folder; a git "
        "revision, branch or tag, or the name of a DVC experiment; the output of dvc exp show "
        "--json, as a file or - for standard input (default: metrics)",
    )
    parser.add_argument(
        "--experiments",
        action="store_true",
        help="compare all DVC experiments of this repository too",
    )
    parser.add_argument(
        "--reference",
        metavar="LABEL",
        help="the row all others are compared with, by its label (default: the control that was "
        "trained by the same recipe)",
    )
    parser.add_argument(
        "--metric",
        choices=METRICS,
        default=METRICS[0],
        help="what differences are taken in (default: %(default)s)",
    )
    parser.add_argument(
        "--format", choices=tuple(FORMATS), default="text", help="(default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to a file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 for a mistake the user can put right."""
    options = build_parser().parse_args(arguments)
    notes: list[str] = []
    try:
        if options.output:
            _check_output(options.output)
        runs = read_sources(options.sources, notes, with_experiments=options.experiments)
        groups = group_runs(runs, notes)
        tables = make_tables(groups, metric=options.metric, reference=options.reference)
        text = printable_lines(FORMATS[options.format](tables, list(dict.fromkeys(notes))))
        if options.output:
            _write(options.output, text)
        else:
            sys.stdout.write(text)
    except DistillationError as error:
        print(f"error: {printable_lines(str(error))}", file=sys.stderr)
        return 1
    if options.format == "csv":
        # The rows have no room for them, and they should not be lost.
        for sentence in dict.fromkeys([*notes, *(r for table in tables for r in table["remarks"])]):
            print(printable_lines(sentence), file=sys.stderr)
    return 0


def _check_output(path: Path) -> None:
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise CompareError(f"--output: got {path}; must be a file in a folder that exists")


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise CompareError(f"--output: {path}: cannot be written ({error.strerror})") from error
    print(f"Comparison written to {path}.")
