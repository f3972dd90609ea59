"""What is said when the machine has reached a limit."""

import errno
import os

import pytest
import torch

from distillation.base.command import run_command
from distillation.base.limits import describe_limit

SAFE = "what was written before is whole; then type the same command again"


def os_error(number, path="/data/x.npy"):
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(number, tmp_path):
    text = describe_limit(os_error(number, str(tmp_path / "gone" / "x.npy")))
    assert text.startswith(f"{tmp_path}/gone/x.npy: the disk is full (")
    assert "GB are free); make room, for instance by `dvc gc --workspace`, or use a" in text
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
    assert "; use a smaller batch_size, teacher_batch_size or image_size, or a" in text
    assert text.endswith(SAFE)


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
