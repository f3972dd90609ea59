"""A folder as people have it: links, pipes, what may not be read, what is left out."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from distillation.sources.decode import DataError
from distillation.sources.files import FileSource
from distillation.sources.names import LEFT_OUT_NAMES
from distillation.sources.walk import walk_folder

NOBODY = 65534


@pytest.fixture
def folder(tmp_path):
    """Give a folder with a file in each of two folders."""
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.png").write_bytes(b"x")
    return tmp_path / "set"


def messages(folder):
    return [found.message for found in walk_folder(folder).problems]


def test_files_and_folders_in_the_order_of_their_parts(folder):
    (folder / "a!").mkdir()
    (folder / "a!" / "1").write_bytes(b"")
    (folder / "a" / "deep").mkdir()
    (folder / "link").symlink_to(folder / "b")
    walk = walk_folder(folder)
    assert walk.files == ["a/0.png", "a!/1", "b/0.png", "link/0.png"]
    assert walk.folders == ["a", "a/deep", "a!", "b", "link"]
    assert walk.problems == []


@pytest.mark.parametrize(
    "name",
    [
        *(sorted(LEFT_OUT_NAMES)),
        *("@eaDir", "$RECYCLE.BIN", "System Volume Information", "THUMBS.DB", "Lost+Found"),
        *(".ipynb_checkpoints", ".DS_Store", ".hidden"),
    ],
)
def test_what_systems_leave_behind_is_left_out(folder, name):
    (folder / "a" / name).mkdir()
    (folder / "a" / name / "0.png").write_bytes(b"x")
    (folder / name).symlink_to(folder / "gone")
    walk = walk_folder(folder)
    assert (walk.files, walk.folders) == (["a/0.png", "b/0.png"], ["a", "b"])
    assert walk.problems == []


def test_all_that_cannot_be_read_is_named_at_once(folder):
    os.mkfifo(folder / "a" / "pipe.png")
    (folder / "b" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "b" / "self").symlink_to(folder / "b" / "self")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(folder / "b" / "socket"))
    (folder / "device").symlink_to("/dev/null")
    expected = [
        f"{folder}/a/pipe.png is a pipe; allowed: files and folders",
        f"{folder}/b/gone.png cannot be read: No such file or directory (a link to "
        f"{folder}/nowhere.png)",
        f"{folder}/b/self cannot be read: Too many levels of symbolic links (a link to "
        f"{folder}/b/self)",
        f"{folder}/b/socket is a socket; allowed: files and folders",
        f"{folder}/device is a device; allowed: files and folders",
    ]
    assert messages(folder) == expected
    with pytest.raises(DataError) as caught:
        FileSource(folder)
    assert str(caught.value) == f"5 paths cannot be used: {'; '.join(expected)}"


def test_a_loop_of_links_is_named(folder):
    (folder / "a" / "to b").symlink_to(folder / "b")
    (folder / "b" / "to a").symlink_to(folder / "a")
    (folder / "a" / "up").symlink_to(folder)
    line = "is a link to a folder that it lies in itself"
    assert messages(folder) == [
        f"{folder}/a/to b/to a {line}",
        f"{folder}/a/up {line}",
        f"{folder}/b/to a/to b {line}",
        f"{folder}/b/to a/up {line}",
    ]


@pytest.fixture
def as_nobody():
    """Give a folder in which this process has no more rights than others, even if it is root's."""
    folder = Path(tempfile.mkdtemp(prefix="walk-"))
    folder.chmod(0o755)
    is_root = os.geteuid() == 0

    def become(user):
        if is_root:
            os.seteuid(user)

    yield folder, become
    become(0)
    for path in folder.iterdir():
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_what_may_not_be_read_is_named(as_nobody):
    folder, become = as_nobody
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "0.png").write_bytes(b"x")
    (folder / "a" / "0.png").chmod(0)
    (folder / "b").chmod(0)
    become(NOBODY)
    with pytest.raises(DataError) as caught:
        FileSource(folder)
    become(0)
    assert str(caught.value) == (
        f"2 paths cannot be used: {folder}/a/0.png cannot be read: Permission denied; "
        f"{folder}/b cannot be read: Permission denied"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (b"k\xf6ter", r"k\xf6ter has a name that is not UTF-8; rename it"),
        (b"new\nline", r"new\nline has a control character in its name; rename it"),
        (b"bell\x07", r"bell\x07 has a control character in its name; rename it"),
        ("a\u2028b".encode(), r"a\u2028b has a line separator in its name; rename it"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_names_that_cannot_be_used_are_refused(folder, name, message, kind):
    path = os.fsencode(folder / "a") + b"/" + name
    if kind == "folder":
        os.mkdir(path)  # noqa: PTH102
    else:
        Path(os.fsdecode(path)).write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        FileSource(folder)
    assert str(caught.value) == f"{folder}/a/{message}"


def test_links_between_folders_do_not_make_endless_many_paths(tmp_path):
    """Each of thirty folders has two links to the next: a billion paths to the last."""
    for number in range(30):
        (tmp_path / f"{number}").mkdir()
        for name in ("x", "y"):
            (tmp_path / f"{number}" / name).symlink_to(tmp_path / f"{number + 1}")
    (tmp_path / "30").mkdir()
    (tmp_path / "30" / "0.png").write_bytes(b"x")
    walk = walk_folder(tmp_path)
    assert len(walk.files) == 100
    assert len(walk.folders) < 100 * 2 * 31
    words = "is a folder that 100 other paths lead to, by links; remove some of these"
    assert all(found.message.endswith(words) for found in walk.problems)
    assert walk.problems
