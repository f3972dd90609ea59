"""Where files are read from: a folder, or a revision of the git repository one is in.

git is asked by its command alone. DVC keeps an experiment's commit under
`refs/exps/<two digits of its parent>/<the others>/<its name>`; its other refs below `refs/exps`
(queue, running and failed experiments) have other forms.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import subprocess
from pathlib import Path
from typing import Protocol

from distillation.compare.runs import CompareError

_EXPERIMENT_REF = re.compile(
    r"(?P<rev>\S+) refs/exps/(?P<first>[0-9a-f]{2})/(?P<rest>[0-9a-f]{38,62})/(?P<name>.+)"
)


class Tree(Protocol):
    """A project's files as they were at one time."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def metrics(self) -> str:
        """The metrics folder, from the project's root."""

    def read(self, path: str) -> bytes | None:
        """Give a file's content, None where there is none; the path is from the root."""

    def names(self, folder: str) -> list[str]:
        """Give the names of the files in a folder in order, none where there is no folder."""


@dataclasses.dataclass(frozen=True)
class FolderTree:
    """A metrics folder with what lies beside it."""

    name: str
    path: Path
    """The metrics folder."""

    @property
    def metrics(self) -> str:
        """Give the folder's own name."""
        return self.path.resolve().name

    def read(self, path: str) -> bytes | None:
        """Read a file."""
        try:
            return (self.path.resolve().parent / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise CompareError(f"{self.name}: {path}: cannot be read ({error.strerror})") from error

    def names(self, folder: str) -> list[str]:
        """List a folder."""
        directory = self.path.resolve().parent / folder
        return sorted(path.name for path in directory.glob("*") if path.is_file())


@dataclasses.dataclass(frozen=True)
class RevisionTree:
    """What git has of the current folder at a revision."""

    name: str
    rev: str
    """The commit's full name."""
    metrics: str = "metrics"

    def read(self, path: str) -> bytes | None:
        """Read a file."""
        return _git("cat-file", "blob", f"{self.rev}:./{path}")

    def names(self, folder: str) -> list[str]:
        """List a folder."""
        listed = _git("ls-tree", "-z", "--name-only", self.rev, f"{folder}/") or b""
        return sorted(Path(name.decode()).name for name in listed.split(b"\0") if name)


def find_revision(name: str) -> RevisionTree:
    """Find a revision by anything git takes for one, or by the name of a DVC experiment.

    Raises:
        CompareError: there is none, or several experiments have this name.
    """
    if rev := find_commit(name):
        return RevisionTree(name, rev)
    allowed = (
        "allowed: a results file (.json), what dvc exp show --json wrote (.json, or - for standard "
        "input), a metrics folder, a git revision or the name of a DVC experiment"
    )
    if _git("rev-parse", "--git-dir") is None:
        raise CompareError(
            f"{name}: no file or folder, and git finds no repository here; {allowed}"
        )
    experiments = _experiments()
    found = [(baseline, rev) for baseline, rev, known in experiments if known == name]
    # As in DVC: of experiments with the same name, the one that started from here is meant.
    here = [pair for pair in found if pair[0] == find_commit("HEAD")] or found
    if len(here) > 1:
        revs = ", ".join(rev[:10] for _, rev in here)
        raise CompareError(f"{name}: {len(here)} experiments have this name; allowed: {revs}")
    if here:
        return RevisionTree(name, here[0][1])
    near = difflib.get_close_matches(name, [*_branches(), *(known for *_, known in experiments)])
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise CompareError(
        f"{name}: no file or folder, no git revision and no DVC experiment; {hint}{allowed}"
    )


def find_commit(name: str) -> str | None:
    """Give the full name of the commit git knows by a name."""
    found = (
        None if name.startswith("-") else _git("rev-parse", "-q", "--verify", f"{name}^{{commit}}")
    )
    return None if found is None else found.decode().strip()


def find_experiments() -> list[RevisionTree]:
    """Give all DVC experiments of the repository, in the order of their names.

    Raises:
        CompareError: the current folder is in no git repository.
    """
    if _git("rev-parse", "--git-dir") is None:
        raise CompareError("--experiments: git finds no repository here; allowed: in one")
    found = sorted(_experiments(), key=lambda experiment: experiment[2])
    return [RevisionTree(name, rev) for _, rev, name in found]


def _experiments() -> list[tuple[str, str, str]]:
    """Give (parent's commit, own commit, name) of every experiment."""
    listed = _git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or b""
    found = map(_EXPERIMENT_REF.fullmatch, listed.decode().splitlines())
    return [(m["first"] + m["rest"], m["rev"], m["name"]) for m in found if m]


def _branches() -> list[str]:
    listed = _git("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags") or b""
    return listed.decode().splitlines()


def _git(*arguments: str) -> bytes | None:
    """Run git; gives what it printed, None where it failed."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise CompareError(
            "git is not installed; allowed without it: results files and metrics folders"
        ) from error
    return done.stdout if done.returncode == 0 else None
