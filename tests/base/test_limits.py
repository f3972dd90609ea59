"""What is said when the machine has reached a limit."""

import errno
import os
import resource
import sqlite3
import sys
from types import SimpleNamespace

import pytest
import torch

from distillation.base.command import run_command
from distillation.base.errors import DistillationError
from distillation.base.files import new_file, write_text
from distillation.base.limits import check_space, describe_limit

SAFE = "what was written before is whole; then type the same command again"


def os_error(number, path="/data/x.npy"):
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(number, tmp_path):
    text = describe_limit(os_error(number, str(tmp_path / "gone" / "x.npy")))
    assert text.startswith(f"{tmp_path}/gone/x.npy: the disk is full (")
    # Of the two commands that come to mind, `dvc gc --workspace` removes every other result.
    assert "GB are free); make room (while nothing runs, `dvc gc --all-commits --all-exp" in text
    assert text.endswith(SAFE)


def test_a_disk_without_room_for_files(tmp_path, monkeypatch):
    few = SimpleNamespace(f_files=600, f_favail=3, f_bavail=9, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: few)
    text = describe_limit(os_error(errno.ENOSPC, str(tmp_path)))
    assert text.startswith(f"{tmp_path}: the disk can hold only 3 more files (inodes); make room")
    assert text.endswith(SAFE)


def test_a_file_that_may_not_grow(tmp_path):
    path, limits = tmp_path / "x", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_text(path, "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = describe_limit(caught.value)
    assert text.startswith(f"{path}: files may not be as large as it becomes, by the file system")
    assert text.endswith(SAFE)


def test_what_a_library_left_out_of_an_error_is_added(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(OSError, match="No space left") as caught, new_file(path):
        raise RuntimeError("serializing: I/O error: No space left on device (os error 28)")
    assert describe_limit(caught.value).startswith(f"{path}: the disk is full")
    with pytest.raises(RuntimeError, match="shapes"), new_file(path):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize(
    "change", ["PRAGMA max_page_count = 2", "PRAGMA query_only = 1; PRAGMA query_only"]
)
def test_dvcs_own_database(change, tmp_path):
    database = sqlite3.connect(tmp_path / "cache.db")
    database.execute("CREATE TABLE files (name)")
    database.executescript(change)
    with pytest.raises(sqlite3.OperationalError) as caught:
        database.execute("INSERT INTO files VALUES (zeroblob(1000000))")
    text = describe_limit(caught.value)
    assert text.startswith(f"DVC's own database on this machine: {caught.value}; make room in")
    assert text.endswith(SAFE)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_what_may_not_be_written(number):
    text = describe_limit(os_error(number))
    assert text.startswith(f"/data/x.npy: {os.strerror(number)}; check who owns it, its perm")
    assert text.endswith(SAFE)


def test_a_place_that_the_system_does_not_name_is_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert describe_limit(error).startswith(f"{tmp_path}: the disk is full")


def allocate_too_much():
    torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize("make", [lambda: bytearray(1 << 60), allocate_too_much])
def test_memory_that_is_not_there(make):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        make()
    text = describe_limit(caught.value)
    assert text.startswith("out of memory (")
    assert "; use DISTILLATION_PROCESSES=1, a smaller batch_size, teacher_batch_size or " in text
    assert text.endswith(SAFE)


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("pthread_create failed, error code: 12 err"),
        Exception("Cannot allocate memory (os error 12)"),
    ],
)
def test_a_good_file_is_not_called_damaged_where_memory_ran_out(error, capsys, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def work():
        raise DistillationError("weights.safetensors is damaged; delete it") from error

    assert run_command(work, if_interrupted="") == 1
    assert capsys.readouterr().err.startswith(f"error: out of memory ({error}); ")


@pytest.mark.parametrize(
    "error", [os_error(errno.EIO), RuntimeError("shapes differ"), ValueError(), KeyError("a")]
)
def test_any_other_error_is_none_of_the_machines_limits(error):
    assert describe_limit(error) is None


def test_a_command_ends_with_the_sentence(capsys):
    def work():
        raise os_error(errno.ENOSPC)

    assert run_command(work, if_interrupted="") == 1
    assert capsys.readouterr().err.startswith("error: /data/x.npy: the disk is full")


def test_a_command_keeps_the_traceback_of_a_bug():
    def work():
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run_command(work, if_interrupted="")


@pytest.mark.parametrize(
    ("share", "stage", "warns"), [(0.9, "s", True), (0.4, "s", False), (0.9, "", False)]
)
def test_a_stages_data_need_room_for_dvcs_copy_too(
    tmp_path, monkeypatch, caplog, share, stage, warns
):
    disk = SimpleNamespace(f_bavail=1000, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    if stage:
        monkeypatch.setenv("DVC_STAGE", stage)
    check_space(tmp_path / "prepared", int(share * 4096 * 1000), way_out="do")
    assert ("DVC's copy of it needs as much again" in caplog.text) is warns
