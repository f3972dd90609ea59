"""Files and folders appear whole or not at all."""

import errno
import json
import math
import os
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from distillation.base.errors import DistillationError
from distillation.base.files import new_directory, new_file, write_json, write_text


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def contents(directory):
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }


# Files


def test_text_is_written_with_its_folders_and_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    for text in ("long " * 1000, "short – ü\n", ""):
        write_text(path, text)
        assert path.read_bytes() == text.encode("utf-8")
        assert names_in(path.parent) == ["c.txt"]


def test_json_is_indented_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None], "a": 0.1})
    text = (tmp_path / "a.json").read_text()
    assert text == '{\n  "b": [\n    1,\n    null\n  ],\n  "a": 0.1\n}\n'
    assert json.loads(text) == {"b": [1, None], "a": 0.1}


@pytest.mark.parametrize(
    ("content", "error"),
    [(math.nan, ValueError), ({"a": math.inf}, ValueError), ({"a": object()}, TypeError)],
)
def test_what_json_has_not_is_refused_and_the_old_file_stays(tmp_path, content, error):
    path = tmp_path / "a.json"
    with pytest.raises(error):
        write_json(path, content)
    assert names_in(tmp_path) == []
    write_json(path, 1)
    with pytest.raises(error):
        write_json(path, content)
    assert contents(tmp_path) == {"a.json": "1\n"}


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_an_interrupted_write_keeps_the_old_file_and_no_other(tmp_path, monkeypatch, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    real = Path.write_text

    def half(self, text, **options):
        real(self, text[: len(text) // 2], **options)
        raise error

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(type(error)):
        write_text(path, "new and longer")
    assert contents(tmp_path) == {"a.txt": "old"}


# Folders


@pytest.fixture
def old(tmp_path):
    """A folder that is there already."""
    directory = tmp_path / "set"
    (directory / "inner").mkdir(parents=True)
    (directory / "a.txt").write_text("old a")
    (directory / "inner" / "b.txt").write_text("old b")
    return directory


OLD = {"a.txt": "old a", "inner/b.txt": "old b"}


def test_a_new_folder_appears_whole_at_the_end(tmp_path):
    directory = tmp_path / "more" / "folders" / "set"
    with new_directory(directory) as new:
        assert names_in(new) == []
        (new / "inner").mkdir()
        (new / "inner" / "a.txt").write_text("1")
        assert not directory.exists()
    assert contents(directory) == {"inner/a.txt": "1"}
    assert names_in(directory.parent) == ["set"]
    (directory.parent / "beside").mkdir()  # with what permissions folders are made here
    assert stat.S_IMODE(directory.stat().st_mode) == stat.S_IMODE(
        (directory.parent / "beside").stat().st_mode
    )


def test_the_new_folder_lies_on_the_same_disk_out_of_sight(tmp_path):
    with new_directory(tmp_path / "set") as new:
        assert new.is_relative_to(tmp_path)
        assert new.relative_to(tmp_path).parts[0].startswith(".set-")


def test_the_old_folder_is_there_until_the_new_one_is_whole_and_gone_then(old):
    with new_directory(old) as new:
        (new / "a.txt").write_text("new a")
        assert contents(old) == OLD
    assert contents(old) == {"a.txt": "new a"}
    assert names_in(old.parent) == ["set"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_block_that_fails_leaves_everything_as_it_was(tmp_path, old, is_first, error):
    directory = tmp_path / "other" if is_first else old

    def fill():
        with new_directory(directory) as new:
            (new / "a.txt").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fill()
    assert names_in(tmp_path) == ["set"]
    assert contents(old) == OLD


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        (1, OSError("disk full")),
        (2, OSError("disk full")),
        (1, KeyboardInterrupt()),
        (2, KeyboardInterrupt()),
    ],
)
def test_a_replacement_that_fails_puts_the_old_folder_back(old, monkeypatch, failing, error):
    real, calls = Path.replace, []

    def replace(self, target):
        calls.append(self)
        if len(calls) == failing:
            raise error
        return real(self, target)

    def fill():
        with new_directory(old) as new:
            (new / "a.txt").write_text("new a")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        with pytest.raises(type(error)):
            fill()
    assert contents(old) == OLD
    assert names_in(old.parent) == ["set"]
    fill()
    assert contents(old) == {"a.txt": "new a"}


def test_two_at_a_time_do_not_mix(tmp_path):
    directory = tmp_path / "set"
    with new_directory(directory) as first, new_directory(directory) as second:
        assert first != second
        (first / "a.txt").write_text("first")
        (second / "b.txt").write_text("second")
    assert contents(directory) == {"a.txt": "first"}  # the last to end
    assert names_in(tmp_path) == ["set"]


# Other writers, and those that were killed

WRITER = """
import sys, time
from pathlib import Path
from distillation.base.files import new_directory, new_file
with (new_file if sys.argv[2] == "file" else new_directory)(Path(sys.argv[1])) as new:
    (new if sys.argv[2] == "file" else new / "a.txt").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@contextmanager
def writer(target, kind):
    """Run another process that is in the middle of writing; it is killed at the end."""
    command = [sys.executable, "-c", WRITER, str(target), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


def write(target, kind, text):
    if kind == "file":
        write_text(target, text)
    else:
        with new_directory(target) as new:
            (new / "a.txt").write_text(text)


def read(target):
    return (target / "a.txt" if target.is_dir() else target).read_text()


def make_older(folder):
    """Let hidden folders look as if their writers had begun long ago."""
    for path in folder.glob(".*"):
        os.utime(path, (0, 0))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, kind):
    target, beside = tmp_path / "set", tmp_path / ".set-b"
    beside.mkdir()  # no writer's: the name is too short
    write(target, kind, "old")
    with writer(target, kind):
        make_older(tmp_path)
        write(target, kind, "new")
        assert len(names_in(tmp_path)) == 3, "the hidden folder of a writer that lives was removed"
    assert len(names_in(tmp_path)) == 3
    write(target, kind, "newer")
    assert names_in(tmp_path) == [".set-b", "set"]
    assert read(target) == "newer"


@pytest.mark.parametrize(
    ("has_lock", "seconds", "stays"),
    [(False, 30, True), (False, 90, False), (True, 1, True), (True, 5, False)],
)
def test_how_old_a_hidden_folder_must_be_to_be_removed(tmp_path, has_lock, seconds, stays):
    hidden = tmp_path / ".set-abcdefgh"
    hidden.mkdir()
    if has_lock:
        (hidden / "lock").touch()
    past = time.time() - seconds
    os.utime(hidden, (past, past))
    write_text(tmp_path / "set", "x")
    assert hidden.exists() is stays


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append(("fsync", path.name))
        fsync(descriptor)

    def note_replace(path, target):
        done.append(("rename", path.name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write(tmp_path / "a.txt", "file", "x")
    assert done == [("fsync", "a.txt"), ("rename", "a.txt"), ("fsync", tmp_path.name)]
    done.clear()
    write(tmp_path / "set", "folder", "x")
    assert done == [("fsync", "a.txt"), ("rename", "new"), ("fsync", tmp_path.name)]


def test_a_file_system_that_cannot_flush_a_folder_will_do(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    for kind in ("file", "folder"):
        write(tmp_path / kind, kind, "x")
        assert read(tmp_path / kind) == "x"


def test_a_folder_that_was_moved_away_when_its_writer_was_killed_comes_back(tmp_path):
    hidden = tmp_path / ".set-abcdefgh"
    (hidden / "old").mkdir(parents=True)
    (hidden / "old" / "a.txt").write_text("old")
    make_older(tmp_path)

    def fail():
        with new_directory(tmp_path / "set"):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert contents(tmp_path) == {"set/a.txt": "old"}


def test_many_writers_of_one_file_leave_a_whole_one(tmp_path):
    path = tmp_path / "results.json"
    code = (
        "import sys; from pathlib import Path; from distillation.base.files import write_json\n"
        "for number in range(100): write_json(Path(sys.argv[1]), [sys.argv[2]] * 1000)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("a", "b", "c")
    ]
    assert [one.wait() for one in writers] == [0, 0, 0]
    assert json.loads(path.read_text()) in [[name] * 1000 for name in "abc"]
    assert names_in(tmp_path) == ["results.json"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a.txt").symlink_to("precious")
    (tmp_path / ".a.txt-abcdefgh").symlink_to("nowhere")
    make = tmp_path / ".a.txt.tmp"
    make.symlink_to("precious")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "a.txt").is_symlink()
    assert read(tmp_path / "a.txt") == "new"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_files_get_here(tmp_path, umask):
    before = os.umask(umask)
    try:
        with new_file(tmp_path / "a.bin") as new:
            new.touch(mode=0o600)  # as some writers do
        write(tmp_path / "set", "folder", "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "set").stat().st_mode) == 0o777 & ~umask


def test_a_folder_in_the_place_of_a_file_is_named_and_stays(tmp_path):
    (tmp_path / "a.json" / "inside").mkdir(parents=True)
    with pytest.raises(DistillationError, match=r"a\.json: is a folder, and a file of this name"):
        write_text(tmp_path / "a.json", "text")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.json", "inside"]
