"""The runs at a git revision or of a DVC experiment, found by DVC's own functions.

They take 5 ms per revision. What DVC documents (`dvc.api.read`, `DVCFileSystem`) resolves the whole
pipeline first, half a second per revision, and `dvc.api.exp_show` lacks the single trainings.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dvc.repo.experiments.utils import exp_refs
from dvc.scm import SCM, Git, RevError, SCMError, resolve_rev

from distillation.compare.projects import Run, read_runs
from distillation.compare.records import CompareError, NoTrainingsError


class RevisionError(CompareError):
    """There is no such revision, or no repository."""


def read_revision(revision: str, notes: list[str], *, name: str | None = None) -> list[Run]:
    """Return the runs in what git has of the current folder at a revision.

    Args:
        revision: anything git takes for one, or the name of a DVC experiment. Of several
            experiments with one name that which started from here is meant.
        notes: gets sentences on what is left out or not sure.
        name: what the user calls it, if not by the revision.

    Raises:
        RevisionError: there is none, or several experiments have this name.
        CompareError: a file cannot be used.
    """
    with _open_repository(revision) as git:
        try:
            return _read_commit(git, resolve_rev(git, revision), notes, name=name or revision)
        except RevError as error:
            known = {*git.list_branches(), *git.list_tags(), *(ref.name for ref in exp_refs(git))}
            near = difflib.get_close_matches(revision, known - {revision})
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise RevisionError(
                f"{revision}: no file or folder; {error}; {hint}must be a results file (.json), "
                "what dvc exp show --json wrote (.json, or - for standard input), a metrics "
                "folder, a git revision or the name of one DVC experiment"
            ) from error


def read_experiments(notes: list[str]) -> list[Run]:
    """Return the runs of all DVC experiments of the repository; those without any get a note."""
    runs = []
    with _open_repository("--experiments") as git:
        refs = list(exp_refs(git))
        names = [ref.name for ref in refs]  # unique for each commit that experiments started from
        for ref in refs:
            is_one = names.count(ref.name) == 1
            name = ref.name if is_one else f"{ref.name} of {ref.baseline_sha[:7]}"
            try:
                runs += _read_commit(git, git.get_ref(str(ref)), notes, name=name)
            except NoTrainingsError:
                notes.append(f"Left out: {name} (no metrics/seeds).")
    return runs


@contextlib.contextmanager
def _open_repository(asked: str) -> Iterator[Git]:
    try:
        git = SCM(".")
    except SCMError as error:
        raise RevisionError(
            f"{asked}: git finds no repository here; must be run in one, or name files and folders"
        ) from error
    with contextlib.closing(git):
        yield git


def _read_commit(git: Git, commit: str, notes: list[str], *, name: str) -> list[Run]:
    here = Path.cwd().relative_to(Path(git.root_dir).resolve())
    try:
        files = git.get_fs(commit)
    except AttributeError as error:  # what a tree or blob of git has in place of files
        raise RevError(f"{name} is no commit") from error
    return read_runs(files, PurePosixPath(here, "metrics"), notes, name=name)
