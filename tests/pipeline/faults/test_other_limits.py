"""A read-only disk, no permission, little memory: one sentence, no traceback, nothing lost."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers.damage import differences
from tests.helpers.small_disk import mounted
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
NO_MEMORY = re.compile(
    rf"(?m)^error: out of memory \(.*\); .* or a machine with more; {SAFE}$|"
    r"^error: this shell allows a program .* raise it: `ulimit -v unlimited`$"
)
AS_USER = [] if os.geteuid() else ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"]
"""Before a command: permissions hold for root too."""


def run(command, root):
    environment = {**WorkTree(root).environment, "HOME": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=120
    )


def refused(command, root, sentence):
    done = run(command, root)
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


@pytest.mark.parametrize("megabytes", [300, 3400])
@pytest.mark.parametrize("program", PROGRAMS)
def test_too_little_memory_to_begin(program, megabytes, tmp_path, pipeline, attempt):
    attempt("too little memory", f"{program}, {megabytes} MB")
    root = pipeline.copy(tmp_path / "work").root
    limit = ["prlimit", f"--as={megabytes}000000"]
    refused([*limit, sys.executable, *PROGRAMS[program]], root, NO_MEMORY)
    assert differences(root, pipeline.root) == []


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("stage", [name for name in PROGRAMS if "-" not in name])
def test_memory_that_runs_out(stage, number, tmp_path, pipeline, attempt, draw):
    """Whether it ends well or not: what is there is right, and the next run has all memory."""
    left = draw.randint(0, 150_000_000)
    attempt("too little memory", f"{stage}, {left / 1e6:.0f} MB once it is loaded")
    root = pipeline.copy(tmp_path / "work").root
    command = [sys.executable, "-m", "tests.helpers.little_memory", stage, str(left)]
    done = run(command, root)
    assert done.returncode in (0, 1), done.stderr
    if done.returncode == 1:
        assert NO_MEMORY.search(done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    done = run([sys.executable, *PROGRAMS[stage]], root)
    assert done.returncode == 0, done.stderr
    assert differences(root, pipeline.root, "data", "models", "metrics", "report") == []
