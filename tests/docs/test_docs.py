"""README and design name what is there: folders, modules, parameters, commands that exist."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers.imports import imports_of


@pytest.fixture(scope="module")
def readme(repository):
    return (repository / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recipes(readme, repository):
    return readme + (repository / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_the_design_names_every_module_and_no_other(repository):
    page = (repository / "docs" / "design.md").read_text(encoding="utf-8")
    named, folder = set(), ""
    for indent, name in re.findall(r"^( *)([\w/.]+)", page.split("## Every file")[1], re.MULTILINE):
        if indent:
            named.add(folder + name)
        else:
            folder = name
    modules = {
        path.relative_to(repository).as_posix()
        for folder in ("distillation", "stages")
        for path in (repository / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named == modules


def test_the_readme_names_every_folder(readme, repository):
    tree = readme.split("## What is where")[1]
    folders = {path.parent.name for path in (repository / "distillation").rglob("*.py")}
    assert {name for name in folders if f"{name}/" not in tree} == set()


def test_overrides_in_the_recipes_are_parameters(recipes, committed_values):
    overrides = set(re.findall(r"-S '?(\w+)=", recipes))
    assert overrides
    assert overrides - set(committed_values) == set()


def test_make_targets_in_the_recipes_exist(recipes, repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([\w-]+)", recipes)) - {"a"}
    assert {t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)} == set()


def anchors_of(page):
    """Return what GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere(repository, monkeypatch):
    monkeypatch.chdir(repository)
    pages = {page: anchors_of(page) for page in (*Path().glob("*.md"), *Path("docs").glob("*.md"))}
    assert len(pages) > 10
    lost = []
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = link.partition("#")
            target = Path(os.path.normpath(page.parent / name)) if name else page
            is_elsewhere = re.match(r"\w+:", link) is not None
            is_there = target.exists() and (not anchor or anchor in pages.get(target, {anchor}))
            lost += [] if is_elsewhere or is_there else [f"{page}: {link}"]
    assert lost == []


def test_make_help_lists_every_target(repository):
    done = subprocess.run(
        ["make", "help"], cwd=repository, capture_output=True, text=True, check=True
    )
    for target in ("setup", "demo", "repro", "test", "test-fast", "test-all", "lint", "bench"):
        assert re.search(rf"^{target} +\w", done.stdout, re.MULTILINE)


def test_packages_import_what_the_design_says(repository):
    text = (repository / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `distillation/(\w+)/` \|[^|]*\| ([^|]*) \|$", text, re.MULTILINE)
    assert {package for package, _ in rows} == {
        path.parent.name for path in repository.glob("distillation/*/__init__.py")
    }
    for package, allowed in rows:
        known = {package, *re.findall(r"`(\w+)`", allowed)}
        for path in (repository / "distillation" / package).glob("*.py"):
            names = [
                name.split(".")
                for name in imports_of(path)
                if name.startswith(("distillation.", "stages"))
            ]
            found = {name[1] if name[0] == "distillation" else "stages" for name in names}
            assert found <= known, path
            if package == "losses":
                assert all(name[2] == "logits" for name in names if len(name) > 2), path
