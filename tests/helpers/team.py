"""What a team shares: a bare git repository, a DVC remote, clones."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.s3 import CREDENTIALS
from tests.helpers.work_tree import WorkTree


def make_bare(path: Path) -> Path:
    """Make the repository that all push to."""
    WorkTree(path.parent).run("git", "init", "-q", "--bare", "-b", "main", path.name)
    return path


def share(work_tree: WorkTree, bare: Path, url: str) -> None:
    """Push what a work tree has to a remote, which git then names to everybody."""
    work_tree.dvc("remote", "add", "-q", "--default", "storage", url)
    work_tree.commit("a remote")
    work_tree.run("git", "remote", "add", "origin", str(bare))
    work_tree.run("git", "push", "-q", "-u", "origin", "main")


def clone(bare: Path, root: Path) -> WorkTree:
    tree = WorkTree(bare.parent)
    tree.run("git", "clone", "-q", str(bare), str(root))
    return WorkTree(root)


def use_s3(work_tree: WorkTree, port: int) -> None:
    """Do what each member of a team does once."""
    work_tree.environment |= CREDENTIALS
    endpoint = f"http://127.0.0.1:{port}"
    work_tree.dvc("remote", "modify", "--local", "storage", "endpointurl", endpoint)
