"""One process at a time."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distillation.base import locks
from distillation.base.locks import LockError, one_at_a_time

HOLDER = """
import sys, time
from pathlib import Path
from distillation.base.locks import one_at_a_time
with one_at_a_time("distill exp1", Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_is_at_it_until_it_is_gone(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "new" / "locks")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            message = (
                rf"^distill exp1 is running here already, as process {process.pid}; allowed: one "
                rf"at a time: wait until it has ended or end it \(kill {process.pid}\), then type "
                "the same command again$"
            )
            with (
                pytest.raises(LockError, match=message),
                one_at_a_time("distill exp1", tmp_path / "new" / "locks"),
            ):
                pass
            with one_at_a_time("distill exp2", tmp_path / "new" / "locks"):
                pass
        finally:
            process.kill()
    with one_at_a_time("distill exp1", tmp_path / "new" / "locks"):
        assert (
            tmp_path / "new/locks/distill-exp1.pid"
        ).read_text() == f"{os.getpid()} {socket.gethostname()}\n"


def test_a_holder_that_is_not_known_is_another_process(tmp_path):
    with one_at_a_time("a", tmp_path):
        (tmp_path / "a.pid").write_text("?")
        with (
            pytest.raises(LockError, match="as another process; allowed"),
            one_at_a_time("a", tmp_path),
        ):
            pass


@pytest.mark.parametrize("put", [Path.mkdir, Path.touch, os.mkfifo, lambda p: p.symlink_to("no")])
@pytest.mark.parametrize("name", ["locks", "locks/a.lock", "locks/a.pid"])
def test_what_stands_in_the_place_of_a_lock_is_named_or_replaced(tmp_path, name, put):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    put(path)
    try:
        with one_at_a_time("a", tmp_path / "locks"):
            assert (
                tmp_path / "locks" / "a.pid"
            ).read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    except LockError as error:
        message = str(error)
        assert message.startswith(f"{path}: a cannot be locked, something else stands there (")
        assert message.endswith("remove it, then type the same command again")
        path.rmdir() if path.is_dir() else path.unlink()
        with one_at_a_time("a", tmp_path / "locks"):
            pass


def test_a_pipe_in_the_place_of_the_holder_is_not_waited_for(tmp_path):
    with one_at_a_time("a", tmp_path):
        (tmp_path / "a.pid").unlink()
        os.mkfifo(tmp_path / "a.pid")
        with (
            pytest.raises(LockError, match="as another process; allowed"),
            one_at_a_time("a", tmp_path),
        ):
            pass


def test_a_process_of_another_machine_is_named_with_it_and_not_to_be_killed_here(tmp_path):
    with one_at_a_time("a", tmp_path):
        (tmp_path / "a.pid").write_text("4711 node-b\n")
        with pytest.raises(LockError) as caught, one_at_a_time("a", tmp_path):
            pass
    assert "as process 4711 on node-b; allowed: one at a time: wait until" in str(caught.value)
    assert "kill" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def acquire(lock):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.FileLock, "acquire", acquire)
    with (
        pytest.raises(LockError, match=rf"^{tmp_path}: its file system has no locks \("),
        one_at_a_time("a", tmp_path),
    ):
        pass
