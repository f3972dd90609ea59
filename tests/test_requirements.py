"""The files of fixed versions hold what pyproject.toml asks for."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def asked_for(project, extra=None):
    """Return the requirements of the project or of an extra, those of its extras among them."""
    listed = project["optional-dependencies"][extra] if extra else project["dependencies"]
    found = []
    for requirement in map(Requirement, listed):
        if requirement.name == project["name"]:
            for inner in sorted(requirement.extras):
                found += asked_for(project, inner)
        else:
            found.append(requirement)
    return found


EXTRAS = ("s3", "gs", "azure", "ssh", "tracking", "cluster")


def pins(repository, *kinds):
    """Return the fixed versions in some of the files, by name."""
    found = {}
    for kind in kinds:
        text = (repository / f"requirements{kind}.txt").read_text(encoding="utf-8")
        for line in filter(lambda line: not line.startswith("#"), text.splitlines()):
            requirement = Requirement(line)
            (fixed,) = requirement.specifier
            found.setdefault(canonicalize_name(requirement.name), set()).add(fixed.version)
    return found


@pytest.mark.parametrize(
    ("extra", "kinds"),
    [
        (None, [""]),
        ("dev", ["", "-dev"]),
        *[(extra, ["", "-extras"]) for extra in EXTRAS],
    ],
)
def test_what_is_asked_for_has_a_fixed_version_in_its_range(extra, kinds, project, repository):
    fixed = pins(repository, *kinds)
    for requirement in asked_for(project, extra):
        versions = fixed.get(canonicalize_name(requirement.name), {"none: run make lock"})
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_a_package_has_one_version_in_all_files(repository):
    shared = pins(repository, "", "-cuda")
    for kind in ("-dev", "-extras", "-bench"):
        for name, versions in pins(repository, kind).items():
            assert versions == shared.get(name, versions), name


def test_a_user_without_a_gpu_gets_nothing_of_cuda(repository):
    names = " ".join(pins(repository, ""))
    assert re.findall(r"\b(?:cuda-[\w-]+|nvidia-(?!ml-py)[\w-]+|triton)\b", names) == []
