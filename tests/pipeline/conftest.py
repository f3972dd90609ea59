"""The pipeline as a user has it: the repository's files in a work tree, tiny models."""

import os
import shutil
import subprocess

import pytest
import yaml
from filelock import FileLock

from distillation.base.params import load_params
from distillation.base.workspace import Workspace
from stages import distill, summarize, train_control
from tests.helpers.stages import ResolvedPipeline
from tests.helpers.work_tree import WorkTree


@pytest.fixture(scope="session")
def resolved(repository, tmp_path_factory):
    """Return the pipeline's stages for any parameters, with nothing run."""
    return ResolvedPipeline(tmp_path_factory.mktemp("resolved"), repository)


@pytest.fixture(scope="session")
def fresh_work_tree(tmp_path_factory, repository, tiny_values):
    """Return what git tracks or would track, with tiny parameters. Tests change a copy of it."""
    root = tmp_path_factory.mktemp("fresh") / "work"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=repository,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (repository / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, root / name)
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_values), encoding="utf-8")
    work_tree = WorkTree(root)
    work_tree.run("git", "init", "-q", "-b", "main")
    work_tree.commit("start")
    return work_tree


@pytest.fixture(scope="session")
def reproduced(fresh_work_tree, tmp_path_factory, tiny_values):
    """Return the work tree after one `dvc repro` with a further method, and what it printed.

    It is made once, by the first of pytest's workers that asks for it.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    work_tree, printed = WorkTree(folder / "reproduced"), folder / "reproduced.txt"
    with FileLock(folder / "reproduced.lock"):
        if not printed.exists():
            fresh_work_tree.copy(work_tree.root)
            values = {**tiny_values, "methods": ["dkd"]}
            params = work_tree.root / "params.yaml"
            params.write_text(yaml.safe_dump(values), encoding="utf-8")
            output = work_tree.dvc("repro")
            work_tree.commit("results")
            printed.write_text(output, encoding="utf-8")
    return work_tree, printed.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def pipeline(reproduced):
    """Return the work tree after one `dvc repro`; tests read it and run nothing in it."""
    return reproduced[0]


@pytest.fixture(scope="session")
def repro_output(reproduced):
    return reproduced[1]


@pytest.fixture
def work_tree(pipeline, tmp_path):
    """Return a copy of the pipeline to run commands in."""
    return pipeline.copy(tmp_path / "work")


@pytest.fixture(scope="session")
def two_seeds(pipeline, tmp_path_factory):
    """Return a copy of the pipeline in which control and exp3 trained with the seeds 0 and 1."""
    work_tree = pipeline.copy(tmp_path_factory.mktemp("two") / "work")
    workspace = Workspace(root=work_tree.root, scratch=None, device_name="cpu")
    params = load_params(work_tree.root / "params.yaml", seeds=[0, 1])
    train_control.main(params, workspace)
    distill.main(params, workspace, method="exp3")
    summarize.main(params, workspace, methods=["control", "exp3"])
    return work_tree
