"""Files and folders appear whole or not at all."""

import json
import math
import stat
from pathlib import Path

import pytest

from distillation.base.files import new_directory, write_json, write_text


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
