"""The command line of `python -m distillation sweep`."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Sequence

from distillation.base.command import run_command, saying_on_interrupt
from distillation.base.durations import describe_duration
from distillation.cluster.errors import SweepError
from distillation.cluster.project import Project, find_project
from distillation.cluster.tasks import Resources, Result, cluster, import_ray, run_tasks
from distillation.cluster.variants import Variant, make_variants
from distillation.compare import main as compare

_EPILOG = """\
examples:
  python -m distillation sweep -S alpha=0.3,0.5,0.7 -S temperature=2,4
  python -m distillation sweep -S alpha=0.3,0.5,0.7 --address auto --gpus-per-run 1
  python -m distillation sweep -S alpha=0.3,0.5,0.7 --resume          what is not there yet

A variant is one task: clone, dvc exp run --pull --allow-missing, dvc push, dvc exp push. Its name
is made of its parameters, and dvc exp pull origin NAME brings its files. More in docs/cluster.md.

exit status: 0 all variants are on the git remote, 1 one is not or none could start, 2 wrong usage,
130 after Ctrl-C
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(
        prog="python -m distillation sweep",
        description="Run variants of the pipeline side by side, on this machine or a Ray cluster.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-S",
        "--set-param",
        dest="grid",
        action="append",
        required=True,
        metavar="NAME=VALUE,…",
        help="a parameter and its values, as for dvc exp run --queue; all combinations are run",
    )
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS") or None,
        help="a running Ray cluster: HOST:PORT, or auto for the one this machine belongs to "
        "(default: $RAY_ADDRESS, or else Ray is started on this machine and ended with the sweep)",
    )
    parser.add_argument(
        "--cpus-per-run",
        type=_amount,
        default=1.0,
        metavar="N",
        help="cores that a variant reserves, and its number of threads (default: %(default)g)",
    )
    parser.add_argument(
        "--gpus-per-run",
        type=_amount,
        metavar="N",
        help="GPUs that a variant reserves; 0.5 lets two share one (default: 1 where the cluster "
        "has any, else 0)",
    )
    parser.add_argument(
        "--retries",
        type=_count,
        default=3,
        metavar="N",
        help="how often a variant starts again whose node has died (default: %(default)s)",
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME",
        help="an environment variable to hand on to the nodes, such as AWS_ACCESS_KEY_ID; may be "
        "given several times",
    )
    parser.add_argument(
        "--work-dir",
        metavar="FOLDER",
        help="where nodes keep their clones while they work (default: their folder for temporary "
        "files)",
    )
    parser.add_argument(
        "--git-remote", default="origin", metavar="NAME", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="skip variants that the git remote has already"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 for a mistake the user can put right."""
    options = build_parser().parse_args(arguments)
    return run_command(
        lambda: _sweep(options),
        if_interrupted="nothing runs any more; with --resume the same command goes on",
    )


def _sweep(options: argparse.Namespace) -> None:
    variants = make_variants(options.grid)
    ray = import_ray()
    resources = Resources(
        cpus=options.cpus_per_run,
        gpus=options.gpus_per_run,
        retries=options.retries,
        work_dir=options.work_dir,
        environment=_environment(options.env),
    )
    project = find_project(options.git_remote)
    names_there = project.names_there()
    there = [variant for variant in variants if variant.name in names_there]
    if there and not options.resume:
        raise SweepError(
            f"{there[0].name}: is on {project.git_remote} already; --resume skips what is there, "
            f"dvc exp remove --git-remote {project.git_remote} {there[0].name} removes it"
        )
    todo = [variant for variant in variants if variant not in there]
    print(f"{len(variants)} variants, {len(there)} of them on {project.git_remote} already")
    arrived, failed = [], []
    for variant in there:
        if error := _fetch(project, variant):
            failed.append(f"{variant.name}: {error}")
        else:
            arrived.append(variant)

    def explain() -> str:
        return (
            f"{len(arrived)} of {len(variants)} variants are on {project.git_remote}, and nothing "
            "runs any more; with --resume the same command goes on"
        )

    if todo:
        with (
            saying_on_interrupt(explain),
            cluster(ray, options.address),
            contextlib.closing(run_tasks(ray, project, todo, resources)) as results,
        ):
            for result in results:
                error = result.error or _fetch(project, result.variant)
                if error is None:
                    arrived.append(result.variant)
                    _show(result, len(arrived), len(variants))
                else:
                    failed.append(f"{result.variant.name}: {error}")
                    print(f"\n{failed[-1]}", file=sys.stderr, flush=True)
    if len(arrived) > 1:
        print(f"\nAll {len(arrived)} on {project.git_remote}:\n", flush=True)
        compare([variant.name for variant in arrived])
    if failed:
        raise SweepError("\n".join([f"{len(failed)} of {len(variants)} variants failed:", *failed]))


def _fetch(project: Project, variant: Variant) -> str | None:
    """Bring a variant's numbers here, not its files; returns what went wrong, if anything."""
    ref = project.ref(variant.name)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "pull", "--no-cache", project.git_remote, ref],
        capture_output=True,
        text=True,
    )
    if done.returncode == 0 and "has diverged" not in done.stdout + done.stderr:
        return None
    if done.returncode == 0:
        return "another experiment of this name is here; dvc exp remove it, then --resume"
    said = done.stderr.strip().splitlines() or [f"dvc exp pull ended with {done.returncode}"]
    return f"cannot be pulled ({said[-1]})"


def _show(result: Result, num_arrived: int, num_variants: int) -> None:
    print(
        f"\n{result.variant.name}: {num_arrived} of {num_variants}, on {result.node} in "
        f"{describe_duration(result.seconds)}\n",
        flush=True,
    )
    compare([result.variant.name])
    sys.stdout.flush()


def _environment(names: Sequence[str]) -> dict[str, str]:
    if missing := [name for name in names if name not in os.environ]:
        raise SweepError(f"--env {missing[0]}: is not set here")
    return {name: os.environ[name] for name in names}


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError
    return count


def _amount(text: str) -> float:
    """Return an amount as Ray takes it: a part of one, in ten-thousandths, or a whole number."""
    amount = float(text)
    is_part = 0.0001 <= amount < 1 and math.isclose(amount, round(amount, 4))
    if not (is_part or (0 <= amount < float("inf") and amount == int(amount))):
        raise argparse.ArgumentTypeError(f"got {text}; must be a whole number, or a part of one")
    return amount
