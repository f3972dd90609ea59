"""Targets of the Makefile that stop before their work."""

import os
import shutil
import subprocess

import pytest


@pytest.fixture
def make_demo(repository):
    """Run `make demo` in a folder where all is installed, as far as make can see."""

    def run(folder):
        (folder / ".venv").mkdir(parents=True, exist_ok=True)
        for name in ("Makefile", "requirements.txt"):
            shutil.copy2(repository / name, folder)
        (folder / ".venv" / ".installed").touch()
        # No repository above the folder counts.
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent), "LC_ALL": "C"}
        return subprocess.run(
            ["make", "demo"], cwd=folder, env=environment, capture_output=True, text=True
        )

    return run


def test_a_demo_without_a_repository_says_what_is_missing(make_demo, tmp_path):
    done = make_demo(tmp_path / "unpacked")
    assert done.returncode != 0
    assert "needs a git repository with a commit: clone the project" in done.stderr
    assert "dvc exp" not in done.stdout


def test_a_demo_below_a_path_that_dvc_cannot_take_says_so(make_demo, tmp_path):
    folder = tmp_path / "Übung"
    folder.mkdir()
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "start"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", *identity, *command], cwd=folder, check=True)
    done = make_demo(folder)
    assert done.returncode != 0
    assert "needs a path of ASCII letters alone: move the project" in done.stderr
    assert "dvc exp" not in done.stdout
