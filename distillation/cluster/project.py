"""What the nodes will clone: the git remote, the commit, and which of its experiments are there.

Nodes see what is committed and pushed, and nothing else. Whatever is missing there is said before
anything starts.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

from dvc.config import Config, ConfigError

from distillation.cluster.errors import SweepError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Project:
    """A commit that can be cloned from anywhere."""

    git_remote: str
    url: str
    commit: str
    folder: str
    """The pipeline's folder within the repository, empty for its root."""

    def ref(self, name: str) -> str:
        """Return git's name of an experiment that starts from this commit, as DVC makes it."""
        return f"refs/exps/{self.commit[:2]}/{self.commit[2:]}/{name}"

    def names_there(self) -> set[str]:
        """Return the names of the experiments from this commit that the git remote has."""
        listed = _git("ls-remote", self.git_remote, self.ref("*"))
        return {line.rpartition("/")[2] for line in listed.splitlines()}


def find_project(git_remote: str) -> Project:
    """Return the project in the current folder, as nodes will find it.

    Raises:
        SweepError: they would not find it, or not as it is here.
    """
    commit = _git("rev-parse", "--verify", "HEAD")
    if changed := _git("status", "--porcelain", "--untracked-files=no").split("\n")[0][2:].strip():
        raise SweepError(
            f"{changed}: is not as it was committed, and nodes clone the commit; commit and push "
            f"it, or git restore {changed}"
        )
    if git_remote not in _git("remote").split():
        raise SweepError(
            f"git remote {git_remote}: there is none, and nodes clone from it; git remote add "
            f"{git_remote} URL, or --git-remote NAME"
        )
    _git("fetch", "--quiet", git_remote)
    if not _git("for-each-ref", f"--contains={commit}", f"refs/remotes/{git_remote}/"):
        raise SweepError(
            f"commit {commit[:7]}: is not on {git_remote}, from where nodes clone it; git push "
            f"{git_remote} HEAD"
        )
    _check_dvc_remote()
    url = _git("remote", "get-url", git_remote)
    if not re.match(r"[\w+.-]+://|[\w.@-]+:", url):  # else it is a folder
        url = str(Path(_git("rev-parse", "--show-toplevel"), url).resolve())
    folder = _git("rev-parse", "--show-prefix")
    return Project(git_remote=git_remote, url=url, commit=commit, folder=folder)


def _check_dvc_remote() -> None:
    """Refuse a project whose committed configuration leads nodes to no DVC remote."""
    add = "dvc remote add --default NAME URL (docs/team.md), then commit and push .dvc/config"
    try:
        config = Config.load_file(".dvc/config")
    except (OSError, ConfigError) as error:
        raise SweepError(f".dvc/config: cannot be read ({error}); run it in the project") from error
    name = config.get("core", {}).get("remote")
    if name is None:
        raise SweepError(f".dvc/config: has no default remote, where nodes leave files; {add}")
    url = config.get("remote", {}).get(name.lower(), {}).get("url", "")  # DVC lowers names
    if "://" not in url and not Path(url).is_absolute():
        raise SweepError(
            f".dvc/config: got {url!r} for the remote {name}; must be an address or a whole path, "
            f"to mean the same in a clone; {add}"
        )


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise SweepError("git: is not installed, or not on PATH") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        sentence = next((line for line in lines if line.startswith("fatal: ")), lines[-1])
        raise SweepError(f"git {arguments[0]}: {sentence.removeprefix('fatal: ')}")
    return done.stdout.rstrip("\n")
