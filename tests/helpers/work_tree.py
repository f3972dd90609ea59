"""A work tree of git and DVC, to run commands in as a user does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


class WorkTree:
    """A git and DVC work tree to run commands in."""

    def __init__(self, root: Path):
        self.root = root
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "DVC_NO_ANALYTICS": "1",
            "HF_HUB_OFFLINE": "1",
            # The user's own settings of git and DVC are not for the tests.
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "DVC_GLOBAL_CONFIG_DIR": str(root.parent / "no-config"),
            "DVC_SYSTEM_CONFIG_DIR": str(root.parent / "no-config"),
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@localhost",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@localhost",
        }

    def run(self, *command: str, status: int | None = 0) -> str:
        """Run a command that ends with this status, None for any failure; returns its output."""
        done = self.start_and_wait(*command)
        is_expected = done.returncode != 0 if status is None else done.returncode == status
        assert is_expected, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}"
        return done.stdout

    def start_and_wait(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command, however it ends."""
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def dvc(self, *arguments: str, status: int | None = 0) -> str:
        return self.run("dvc", *arguments, status=status)

    def ran(self, *arguments: str) -> list[str]:
        """Return the stages that a dvc command ran."""
        return stages_in(self.dvc(*arguments))

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def metrics(self, name: str) -> dict:
        return json.loads((self.root / "metrics" / f"{name}.json").read_text(encoding="utf-8"))

    def changed_stages(self) -> set[str]:
        """Return the stages whose own dependencies or parameters differ from dvc.lock."""
        return set(json.loads(self.dvc("status", "--json")))

    def restore(self) -> None:
        """Go back to the committed parameters and results."""
        self.run("git", "checkout", "-q", "--", ".")
        self.dvc("checkout", "-q", "--force")

    def status(self) -> str:
        return self.run("git", "status", "--porcelain")

    def copy(self, root: Path) -> WorkTree:
        shutil.copytree(self.root, root, symlinks=True)
        return WorkTree(root)


def stages_in(output: str) -> list[str]:
    """Return the stages a dvc command ran, from what it printed."""
    return re.findall(r"Running stage '([^']+)'", output)
