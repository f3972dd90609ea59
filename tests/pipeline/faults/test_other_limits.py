"""A read-only disk, folders without permission: one sentence, no traceback, nothing changed."""

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
