"""A read-only disk, folders of somebody else, too little memory: one sentence, no traceback."""

import os
import re
import resource
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from tests.helpers.damage import differences, remove
from tests.helpers.small_disk import mounted
from tests.helpers.stage_runs import STAGES, check_whole, do, outputs
from tests.helpers.work_tree import WorkTree

PROGRAMS = {
    "check_inputs": ("-m", "stages.check_inputs"),
    "prepare_data": ("-m", "stages.prepare_data"),
    "train_control": ("-m", "stages.train_control"),
    "teacher_targets": ("-m", "stages.teacher_targets"),
    "export_student": ("-m", "stages.export_student"),
    "summarize": ("-m", "stages.summarize"),
    "python -m distillation": ("-m", "distillation", "--run-dir", "run"),
}
SAFE = "what was written before is whole; then type the same command again"
FORBIDDEN = re.compile(
    r"(?m)^error: .*(Read-only file system|Permission denied); check who owns it, its permissions, "
    rf"and whether the disk is mounted read-only; {SAFE}$"
)
MEMORY = re.compile(
    r"(?m)^error: out of memory \(.*\); use a smaller batch_size, teacher_batch_size or "
    rf"image_size, or a machine with more; {SAFE}$"
)
AS_USER = [] if os.geteuid() else ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"]
"""Before a command: permissions hold for root too."""


def refused(command, root, sentence):
    environment = {**WorkTree(root).environment, "HOME": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=120
    )
    told = done.stderr
    assert done.returncode == 1, f"{done.returncode}: {told}"
    assert sentence.search(told), told
    assert "Traceback" not in told
    return told


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_read_only_disk(program, tmp_path, pipeline, attempt):
    attempt("read-only disk", program)
    with mounted(tmp_path / "disk") as disk:
        root = pipeline.copy(disk / "work").root
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refused([sys.executable, *PROGRAMS[program]], root, FORBIDDEN)
        assert differences(root, pipeline.root) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_folders_without_permission(program, tmp_path, pipeline, attempt):
    attempt("folders without permission to write", program)
    root = pipeline.copy(tmp_path / "work").root
    for folder, _, _ in os.walk(root):
        os.chmod(folder, 0o555)  # noqa: PTH101
    refused([*AS_USER, sys.executable, *PROGRAMS[program]], root, FORBIDDEN)
    assert differences(root, pipeline.root) == []


def limit_memory(more):
    """Let this process have so many bytes more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("stage", STAGES)
def test_too_little_memory(stage, number, work_tree, pipeline, attempt, draw, capfd):
    more = int(2 ** draw.uniform(16, 25))
    attempt("memory limit", f"{stage}, {more} bytes more than at its start")
    for out in outputs(pipeline.root, stage):
        remove(work_tree.root / out)
    child = os.fork()
    if child == 0:
        status = 99
        try:
            limit_memory(more)
            status = do(stage, work_tree.root)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    told = capfd.readouterr().err
    assert os.WIFEXITED(ended), f"signal {os.WTERMSIG(ended)}: {told[-300:]}"
    if os.WEXITSTATUS(ended) != 0:
        assert os.WEXITSTATUS(ended) == 1, told[-3000:]
        assert MEMORY.search(told), told
        check_whole(work_tree.root, pipeline.root)
        assert do(stage, work_tree.root) == 0
    assert differences(work_tree.root, pipeline.root) == []
