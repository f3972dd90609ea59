"""What a node says of a failure, and what ends with it."""

import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from distillation.cluster.node import find_sentence, run_variant
from tests.helpers.work_tree import WorkTree

STAGE = """\
> python -m stages.check_inputs
error: alpha: got -1; must be at least 0
DVC has removed what this stage had made before
ERROR: failed to reproduce 'check_inputs': failed to run: python -m stages.check_inputs
"""
DVC = """\
WARNING: Some of the cache files do not exist neither locally nor on remote. Missing cache files:
md5: 3739fe7be88185f4ddce4ef044f00034.dir
ERROR: failed to reproduce 'distill_exp2': Checkout failed for following targets:
data/prepared
Is your cache up to date?
"""


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        (STAGE, "alpha: got -1; must be at least 0"),
        (
            DVC,
            "failed to reproduce 'distill_exp2': Checkout failed for following targets: "
            "data/prepared Is your cache up to date?; dvc push where the commit was run",
        ),
        ("Cloning\nfatal: repository 'x' does not exist\n", "fatal: repository 'x' does not exist"),
        ("", "it said nothing"),
    ],
)
def test_a_log_becomes_one_sentence(log, sentence):
    assert find_sentence(log) == sentence


@pytest.fixture
def run(tmp_path):
    """Run a variant of a repository that has no pipeline."""
    source = WorkTree(tmp_path / "source")
    source.root.mkdir()
    source.run("git", "init", "-q")
    source.run("git", "commit", "-q", "--allow-empty", "-m", "start")
    commit = source.run("git", "rev-parse", "HEAD").strip()

    def run_there(work_dir, ref):
        url = str(source.root)
        names = {"name": "n", "overrides": ["alpha=1"], "folder": "", "ref": ref}
        return run_variant(url=url, commit=commit, work_dir=str(work_dir), **names)

    return source, run_there


def test_a_clone_stays_where_its_variant_failed(run, tmp_path):
    result = run[1](tmp_path / "nodes", "refs/exps/n")
    (log,) = (tmp_path / "nodes").glob("sweep-*/log.txt")
    assert re.fullmatch(rf"you are not inside of a DVC repository.* \(\S+:{log}\)", result["error"])
    assert (log.parent / "clone" / ".git").is_dir()


def test_what_a_dead_node_had_finished_is_not_run_again(run, tmp_path):
    source, run_there = run
    source.run("git", "update-ref", "refs/exps/n", "HEAD")
    assert run_there(tmp_path / "nodes", "refs/exps/n")["error"] is None
    assert [*(tmp_path / "nodes").iterdir()] == []


def test_a_folder_that_cannot_be_made_is_named(run, tmp_path):
    (tmp_path / "file").touch()
    error = run[1](tmp_path / "file" / "nodes", "refs/exps/n")["error"]
    assert error.startswith(f"{tmp_path}/file/nodes: no clone can be made there (Not a directory")


# A child, one in a session of its own and one whose parent has gone.
FAMILY = "sleep 1001 & setsid sleep 1002 & (sleep 1003 &) ; sleep 1004"
WORKER = f"""
import sys
from pathlib import Path
from distillation.cluster import node
node._run(["bash", "-c", {FAMILY!r}], Path("."), sys.stdout)
"""


def as_ray_does(worker):
    """End a worker as Ray does when a node has died: its children first."""
    for process in (*worker.children(), worker):
        process.kill()


@pytest.mark.parametrize(
    "end", [psutil.Process.kill, lambda worker: worker.send_signal(signal.SIGINT), as_ray_does]
)
def test_all_that_a_worker_has_started_ends_with_it(end, repository):
    with subprocess.Popen([sys.executable, "-c", WORKER], cwd=repository, stderr=-3) as worker:
        family = []
        deadline = time.monotonic() + 30
        while len(family) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            children = psutil.Process(worker.pid).children(recursive=True)
            family = [child for child in children if child.name() == "sleep"]
        end(psutil.Process(worker.pid))
    _, running = psutil.wait_procs(family, timeout=20)
    assert running == []
