"""Nothing but a regular file is opened, and nothing is waited for."""

import os
import socket

import pytest

from distillation.base.regular_files import NotAFileError, open_regular


def test_a_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(tmp_path / "socket"))
    for kind in ("pipe", "folder", "device", "socket"):
        with pytest.raises(NotAFileError, match=rf"is a {kind}") as caught:
            open_regular(tmp_path / kind)
        assert caught.value.kind == kind


def test_what_is_not_there_is_an_error_of_the_system(tmp_path):
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in (
        ("gone", "No such file"), ("dangling", "No such file"),
        ("loop", "Too many levels"), ("x" * 300, "File name too long"),
    ):  # fmt: skip
        with pytest.raises(OSError, match=message):
            open_regular(tmp_path / name)
