"""The README says what is there: every module, every parameter file, commands that exist."""

import re
import subprocess

import pytest
import yaml


@pytest.fixture(scope="module")
def readme(repository):
    return (repository / "README.md").read_text(encoding="utf-8")


def test_the_file_tree_names_every_module(readme, repository):
    tree = readme.split("## What is where")[1]
    modules = {
        path.name
        for folder in ("distillation", "stages")
        for path in (repository / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert {name for name in modules if name not in tree} == set()
    named = set(re.findall(r"(\w+\.py)\b", tree))
    assert named - modules == set()


def test_overrides_in_the_recipes_are_parameters(readme, repository):
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    overrides = set(re.findall(r"-S '?(\w+)=", readme))
    assert overrides
    assert overrides - set(params) == set()


def test_make_targets_in_the_readme_exist(readme, repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake (\w+)", readme)) - {"a"}
    assert {t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)} == set()


def test_make_help_lists_every_target(repository):
    done = subprocess.run(
        ["make", "help"], cwd=repository, capture_output=True, text=True, check=True
    )
    for target in ("setup", "demo", "repro", "test", "lint", "bench"):
        assert re.search(rf"^{target} +\w", done.stdout, re.MULTILINE)
