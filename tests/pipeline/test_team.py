"""A team as docs/team.md has it: a remote, a bare git repository, two clones."""

import json
import re

import pytest

from tests.helpers.s3 import BUCKET, Line, s3_server
from tests.helpers.team import clone, make_bare, share, use_s3
from tests.helpers.work_tree import stages_in

EXPERIMENT = ("exp", "run", "--pull", "--allow-missing", "-n", "there", "-S", "alpha=0.7")


@pytest.fixture(scope="module")
def server():
    with s3_server() as port:
        yield port


@pytest.fixture
def line(server):
    line = Line(server)
    yield line
    line.close()


@pytest.fixture
def bare(tmp_path):
    return make_bare(tmp_path / "team.git")


def check_whole(here, there):
    """Check that a clone has all but the teacher's outputs, byte for byte."""
    changed = json.loads(there.dvc("status", "--json"))
    assert changed == {"teacher_targets": [{"changed outs": {"data/targets": "not in cache"}}]}
    for name in ("models/student/student.onnx", "models/teacher.safetensors"):
        assert (there.root / name).read_bytes() == (here.root / name).read_bytes()
    assert "up to date" in there.dvc("repro", "--allow-missing")


@pytest.mark.full
def test_a_bucket_brings_results_there_and_an_experiment_back(work_tree, bare, line, tmp_path):
    here = work_tree
    share(here, bare, f"s3://{BUCKET}/round-trip")
    use_s3(here, line.port)
    assert re.search(r"\d+ files pushed", here.dvc("push"))

    # A clone that has pulled nothing runs an experiment: what it needs comes along.
    there = clone(bare, tmp_path / "there")
    use_s3(there, line.port)
    output = there.dvc(*EXPERIMENT, "distill_exp1")
    assert stages_in(output) == ["distill_exp1"]
    assert "data/targets is missing: the teacher's outputs are computed" in output
    # DVC knows nothing of what was computed: it is in the way of no later pull.
    there.dvc("pull", "--allow-missing")
    output = there.dvc(*EXPERIMENT[:-3], "again", "-S", "alpha=0.6", "distill_exp1")
    assert "targets is kept: it holds this teacher's outputs" in output
    there.dvc("exp", "push", "origin", "there")
    here.dvc("exp", "pull", "origin", "there")
    shown = json.loads(here.dvc("exp", "show", "--json"))
    assert [run["name"] for entry in shown for run in entry["experiments"] or []] == ["there"]
    table = here.run("python", "-m", "distillation", "compare", "main", "there", "--format", "json")
    assert "exp1 alpha=0.7" in table

    # A download that breaks off leaves nothing half; the same command takes what is missing.
    third = clone(bare, tmp_path / "third")
    use_s3(third, line.port)
    third.environment["AWS_MAX_ATTEMPTS"] = "1"  # the default asks for four minutes
    line.num_bytes_left = 3_000_000
    output = third.dvc("pull", "--allow-missing", status=None)
    assert "failed to" in output
    line.num_bytes_left = float("inf")
    third.dvc("pull", "--allow-missing")
    check_whole(here, third)


def test_a_folder_is_a_remote(work_tree, bare, tmp_path):
    share(work_tree, bare, str(tmp_path / "store"))
    work_tree.dvc("push")
    there = clone(bare, tmp_path / "there")
    # The teacher's outputs are in no remote, which pull calls a failure.
    output = there.dvc("pull", status=1)
    assert re.findall(r"^(?:data|models|metrics|report)/\S+", output, re.MULTILINE) == [
        "data/targets"
    ]
    assert "Everything is up to date." in there.dvc("pull", "--allow-missing")
    check_whole(work_tree, there)


@pytest.mark.full
def test_a_whole_experiment_in_a_clone_without_anything(work_tree, bare, tmp_path):
    share(work_tree, bare, str(tmp_path / "store"))
    work_tree.dvc("push")
    there = clone(bare, tmp_path / "there")
    distilled = ["distill@dkd", "distill_exp1", "distill_exp2", "distill_exp3"]
    ran = there.ran(*EXPERIMENT)
    assert sorted(ran[:4]) == distilled
    assert ran[4:] == ["export_student", "summarize"]


def test_without_a_remote_pull_says_so(pipeline, bare, tmp_path):
    pipeline.copy(tmp_path / "here").run("git", "push", "-q", str(bare), "main")
    there = clone(bare, tmp_path / "there")
    assert "No remote provided and no default remote set" in there.dvc("pull", status=1)
