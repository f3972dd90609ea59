"""What nodes would miss is said before anything starts."""

import pytest

from distillation.cluster.errors import SweepError
from distillation.cluster.project import find_project
from tests.helpers.work_tree import WorkTree

CONFIG = "[core]\n    remote = storage\n['remote \"storage\"']\n    url = s3://team/here\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a small project, pushed, in the current folder."""
    root = tmp_path / "work"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text(CONFIG)
    (root / "params.yaml").write_text("alpha: 0.5\n")
    tree = WorkTree(root)
    tree.run("git", "init", "-q", "-b", "main")
    tree.commit("start")
    tree.run("git", "init", "-q", "--bare", "-b", "main", "../team.git")
    tree.run("git", "remote", "add", "origin", "../team.git")
    tree.run("git", "push", "-q", "origin", "main")
    monkeypatch.chdir(root)
    return tree


def change_config(project, before, after):
    (project.root / ".dvc" / "config").write_text(CONFIG.replace(before, after))
    project.commit("config")
    project.run("git", "push", "-q", "origin", "main")


def test_a_project_is_a_commit_that_any_folder_can_clone(project, tmp_path):
    (project.root / "untracked.txt").touch()
    found = find_project("origin")
    commit = project.run("git", "rev-parse", "HEAD").strip()
    assert (found.url, found.commit, found.folder) == (str(tmp_path / "team.git"), commit, "")
    ref = f"refs/exps/{commit[:2]}/{commit[2:]}/alpha=0.3"
    assert found.ref("alpha=0.3") == ref
    assert found.names_there() == set()
    project.run("git", "push", "-q", "origin", f"HEAD:{ref}", "HEAD:refs/exps/ab/cd/alpha=0.5")
    assert found.names_there() == {"alpha=0.3"}


def test_an_address_is_no_folder(project, tmp_path, monkeypatch):
    project.run("git", "remote", "set-url", "origin", "git@host:team.git")
    ssh = tmp_path / "ssh"  # without a network: the command for the other side, run here
    ssh.write_text(f'#!/bin/bash\ncd {tmp_path} && eval "${{@: -1}}"\n')
    ssh.chmod(0o700)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    assert find_project("origin").url == "git@host:team.git"


def test_a_change_that_is_not_committed_is_named(project):
    (project.root / "params.yaml").write_text("alpha: 0.7\n")
    with pytest.raises(SweepError, match=r"^params.yaml: is not as it was committed.*git restore"):
        find_project("origin")


def test_a_commit_that_is_not_pushed_is_named(project):
    (project.root / "params.yaml").write_text("alpha: 0.7\n")
    project.commit("alpha")
    with pytest.raises(SweepError, match=r"^commit \w{7}: is not on origin.*git push origin HEAD"):
        find_project("origin")


def test_a_git_remote_that_does_not_exist_is_named(project):
    with pytest.raises(SweepError, match=r"^git remote team: there is none.*--git-remote"):
        find_project("team")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("    remote = storage\n", "", r"has no default remote.*dvc remote add --default"),
        ("s3://team/here", "../store", r"got '../store' for the remote storage; must be"),
    ],
)
def test_a_dvc_remote_that_nodes_cannot_find_is_named(project, before, after, message):
    change_config(project, before, after)
    with pytest.raises(SweepError, match=rf"^\.dvc/config: {message}"):
        find_project("origin")


def test_a_dvc_remote_may_have_capitals_as_dvc_allows(project):
    change_config(project, "storage", "Storage")
    assert find_project("origin").git_remote == "origin"


def test_outside_of_git_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(SweepError, match="not a git repository"):
        find_project("origin")
