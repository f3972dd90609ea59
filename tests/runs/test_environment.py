"""The commit that stands beside a training's numbers, of real repositories."""

import pytest

from distillation.runs.environment import describe_commit
from tests.helpers.work_tree import WorkTree


@pytest.fixture
def work_tree(tmp_path):
    """Give a repository of this project's shape, all of it committed."""
    work_tree = WorkTree(tmp_path)
    (tmp_path / "distillation").mkdir()
    for name in ("distillation/__init__.py", "params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text("old")
    work_tree.run("git", "init", "-q")
    work_tree.commit("start")
    return work_tree


def test_a_clean_tree_has_commit_and_date(work_tree):
    commit = work_tree.run("git", "rev-parse", "HEAD").strip()
    date = work_tree.run("git", "show", "-s", "--format=%cI").strip()
    assert describe_commit(work_tree.root) == {
        "commit": commit,
        "commit_date": date,
        "uncommitted_changes": False,
    }


@pytest.mark.parametrize(
    ("name", "is_code"),
    [
        ("distillation/__init__.py", True),
        ("distillation/new.py", True),
        ("dvc.yaml", True),
        ("params.yaml", False),
        ("metrics.json", False),
    ],
)
def test_changes_of_code_count_and_those_of_parameters_and_results_do_not(work_tree, name, is_code):
    (work_tree.root / name).write_text("new")
    assert describe_commit(work_tree.root)["uncommitted_changes"] is is_code


def test_a_commit_of_results_is_not_the_codes(work_tree):
    before = describe_commit(work_tree.root)
    (work_tree.root / "metrics.json").write_text("new")
    work_tree.commit("a run")
    assert describe_commit(work_tree.root) == before
    (work_tree.root / "dvc.yaml").write_text("new")
    work_tree.commit("a stage")
    assert (
        describe_commit(work_tree.root)["commit"] == work_tree.run("git", "rev-parse", "HEAD")[:-1]
    )


def test_a_repository_around_an_installed_package_is_not_its_commit(work_tree):
    package = work_tree.root / "venv" / "distillation"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    assert describe_commit(package.parent) == {}


def test_without_git_or_a_commit_nothing_is_said(tmp_path, monkeypatch):
    assert describe_commit(tmp_path) == {}
    WorkTree(tmp_path).run("git", "init", "-q")
    assert describe_commit(tmp_path) == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_commit(tmp_path) == {}
