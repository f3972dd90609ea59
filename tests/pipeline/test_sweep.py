"""`python -m distillation sweep` with real Ray: on this machine, and on a cluster of two nodes."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
import yaml

from tests.helpers.s3 import BUCKET, s3_server
from tests.helpers.team import clone, make_bare, share, use_s3
from tests.helpers.work_tree import WorkTree

pytestmark = pytest.mark.full

SWEEP = (sys.executable, "-m", "distillation", "sweep")
GRID = ("-S", "alpha=0.3,0.5,0.7", "-S", "temperature=2,4")
NAMES = [f"alpha={alpha},temperature={t}" for alpha in ("0.3", "0.5", "0.7") for t in (2, 4)]
OBJECT_STORE_BYTES = 80 * 2**20


@pytest.fixture
def bare(tmp_path):
    return make_bare(tmp_path / "team.git")


@pytest.fixture
def shared(work_tree, bare, tmp_path):
    """Return a work tree whose team has a folder for a remote."""
    share(work_tree, bare, str(tmp_path / "store"))
    work_tree.dvc("push", "--quiet")
    return work_tree


@pytest.fixture
def two_nodes(monkeypatch):
    """Start a head and a second node, each with one core; yield the cluster and the second node.

    127.0.0.1 itself will not do: Ray takes it for the machine's own address.
    """
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    options = {
        "num_cpus": 1,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    head = {**options, "node_ip_address": "127.0.0.2"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster, cluster.add_node(**options, node_ip_address="127.0.0.3")
    finally:
        cluster.shutdown()


@pytest.fixture(autouse=True)
def nothing_left(tmp_path, monkeypatch):
    """Check that no process of Ray or of a variant outlives a test, by what all of them inherit."""
    monkeypatch.setenv("SWEEP_OF", str(tmp_path))
    yield
    deadline = time.monotonic() + 30
    while running := [*filter(partial(belongs_to, str(tmp_path)), psutil.process_iter())]:
        assert time.monotonic() < deadline, [one.cmdline() for one in running]
        time.sleep(0.2)


def belongs_to(sweep, process):
    try:
        return process.pid != os.getpid() and process.environ().get("SWEEP_OF") == sweep
    except psutil.Error:
        return False  # it has ended, or is somebody else's


def start(work_tree, *arguments):
    return subprocess.Popen(
        [*SWEEP, *arguments],
        cwd=work_tree.root,
        env={**work_tree.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_stage(root_process, name):
    """Return a stage's process that descends from another, and what lies between."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        family = root_process.children(recursive=True)
        for process in family:
            try:
                if f"-m {name}" in " ".join(process.cmdline()):
                    return process, family
            except psutil.NoSuchProcess:
                pass
        time.sleep(0.1)
    pytest.fail(f"{name} never ran")


def names_on(bare):
    listed = WorkTree(bare.parent).run("git", "ls-remote", str(bare), "refs/exps/*")
    return sorted(line.rpartition("/")[2] for line in listed.splitlines())


def read(work_tree, experiment, path):
    """Return the text of a file in an experiment, whose name is none of git's."""
    refs = work_tree.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    (ref,) = [ref for ref in refs if ref.endswith(f"/{experiment}")]
    return work_tree.run("git", "show", f"{ref}:{path}")


def made_in(lock):
    """Return the checksums of weights and predictions, by file."""
    return {
        out["path"]: out["md5"]
        for stage in yaml.safe_load(lock)["stages"].values()
        for out in stage.get("outs", ())
        if out["path"].startswith(("models/students/", "data/predictions/"))
    }


def test_six_variants_on_two_nodes_of_which_one_dies(work_tree, bare, two_nodes, tmp_path):
    cluster, second = two_nodes
    here = work_tree
    with s3_server() as port:
        share(here, bare, f"s3://{BUCKET}/sweep")
        use_s3(here, port)
        here.dvc("push", "--quiet")
        # The nodes have no configuration of their own: all they know comes with their task.
        here.environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        handed_on = [
            word for name in here.environment if "AWS_" in name for word in ("--env", name)
        ]
        options = ("--address", cluster.address, "--work-dir", str(tmp_path / "nodes"), *handed_on)
        sweep = start(here, *GRID, *options)
        try:
            (raylet,) = second.all_processes["raylet"]
            stage, family = wait_for_stage(psutil.Process(raylet.process.pid), "stages.distill")
            clone_of_the_dead = stage.cwd()
            cluster.remove_node(second, allow_graceful=False)
            _, running = psutil.wait_procs(family, timeout=20)
            assert running == []
            output, _ = sweep.communicate(timeout=1500)
        finally:
            sweep.kill()
        assert sweep.returncode == 0, output
        assert names_on(bare) == sorted(NAMES)
        (killed,) = re.findall(rf"\((\S+) pid=.*log in {re.escape(clone_of_the_dead[:-6])}", output)
        assert len(re.findall(rf"^\({re.escape(killed)} pid=.* runs on", output, re.MULTILINE)) == 2
        # What came was shown, one by one and together.
        assert re.findall(r"^alpha\S+: (\d) of 6, on ", output, re.MULTILINE) == list("123456")
        table = output.split("All 6 on origin:")[1]
        rows = re.findall(r"^exp1 (alpha=\S+) (temperature=\d)", table, re.MULTILINE)
        assert [",".join(row) for row in rows] == NAMES

        # The same numbers as by hand, for the one that died and another.
        for name in {killed, NAMES[0]}:
            overrides = [part for value in name.split(",") for part in ("-S", value)]
            by_hand = clone(bare, tmp_path / f"by-hand-{name}")
            use_s3(by_hand, port)
            by_hand.dvc("exp", "run", "--pull", "--allow-missing", "-n", "by-hand", *overrides)
            made = made_in(read(here, name, "dvc.lock"))
            assert made == made_in(read(by_hand, "by-hand", "dvc.lock"))
            assert made != made_in(here.run("git", "show", "main:dvc.lock"))
            for method in ("control", "exp1", "exp2", "exp3", "dkd"):
                file = f"metrics/methods/{method}.json"
                assert read(here, name, file) == read(by_hand, "by-hand", file)

        # Again: refused, or skipped as there already.
        assert "is on origin already; --resume skips" in here.run(*SWEEP, *GRID, status=1)
        again = here.run(*SWEEP, *GRID, "--resume")
        assert "6 variants, 6 of them on origin already" in again
        assert "runs on" not in again
        assert again.split("All 6 on origin:")[1] == table
    # Whole clones are gone; that of the dead node nobody could remove.
    assert [str(path / "clone") for path in (tmp_path / "nodes").iterdir()] == [clone_of_the_dead]


def test_a_refused_value_stops_no_other_variant(shared, bare, tmp_path):
    options = ("--work-dir", str(tmp_path / "nodes"))
    output = shared.run(*SWEEP, "-S", "feature_weight=-1,0.3", *options, status=1)
    assert names_on(bare) == ["feature_weight=0.3"]
    assert "feature_weight=0.3: 1 of 2, on " in output
    (log,) = (tmp_path / "nodes").glob("sweep-*/log.txt")
    assert re.search(
        r"error: 1 of 2 variants failed:\n"
        r"feature_weight=-1: feature_weight: got -1; must be at least 0 "
        rf"\(\S+:{re.escape(str(log))}\)$",
        output.strip(),
    )
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_all_variants(number, status, word, shared, bare, tmp_path):
    sweep = start(shared, "-S", "alpha=0.3,0.7,0.9", "--work-dir", str(tmp_path / "nodes"))
    try:
        _, family = wait_for_stage(psutil.Process(sweep.pid), "stages.distill")
        os.killpg(sweep.pid, number)
        output, _ = sweep.communicate(timeout=60)
    finally:
        sweep.kill()
    assert sweep.returncode == status, output
    assert f"{word}: 0 of 3 variants are on origin, and nothing runs any more" in output
    assert "Traceback" not in output
    _, running = psutil.wait_procs(family, timeout=20)
    assert running == []
    assert names_on(bare) == []
    assert [*(tmp_path / "nodes").iterdir()] == []
