"""Options that name a pipe, a device, a dangling link, or a path that no system takes."""

import os

import pytest
import yaml

from distillation.cli import train
from distillation.compare import command as compare

TOO_LONG = "x" * 300


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, tiny_values):
    """Make a working directory with parameters and all that is no file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_values), encoding="utf-8")
    for name in ("pipe", "pipe.json", "pipe.tar"):
        os.mkfifo(tmp_path / name)
    for name in ("device", "device.json", "device.tar"):
        (tmp_path / name).symlink_to("/dev/zero")
    (tmp_path / "dangling").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--params", "pipe", "pipe: is a pipe; must be a file"),
        ("--params", "device", "device: is a device; must be a file"),
        ("--params", "dangling", "dangling: cannot be read (No such file or directory)"),
        ("--params", TOO_LONG, f"{TOO_LONG}: cannot be read (File name too long)"),
        *(
            ("--run-dir", name, f"run-dir: got '{name}'; allowed: a folder that holds runs of ")
            for name in ("pipe", "device", "dangling", "pipe/below", TOO_LONG)
        ),
        *(
            ("--results-path", name, f"results path: got '{name}'; allowed: a file in a folder ")
            for name in ("pipe.json", "device.json", "pipe/x.json", f"{TOO_LONG}.json")
        ),
        ("--dataset", "pipe.tar", "pipe.tar is a pipe, a socket or a device; allowed: files and "),
        ("--dataset", "device.tar", "device.tar is a pipe, a socket or a device; allowed: files "),
        ("--dataset", "device", "device: not a folder and not an archive; allowed endings: "),
        ("--dataset", TOO_LONG, "dataset: got 'xxx"),
        ("--alpha", "9" * 5000, "alpha: got inf; must be a number, at least 0"),
        ("--optimizer-options", "[" * 50_000, "optimizer_options: got '[[["),
        ("--optimizer-options", "{a: &a [1], b: [*a, *a]}", "optimizer_options: got '{a: &a "),
    ],
)
def test_one_sentence_and_no_waiting(option, value, message, capsys):
    assert train.main(["--experiment", "control", option, value]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert len(error) < 1000


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_compare_reads_files_alone(kind, capsys):
    assert compare.main([f"{kind}.json"]) == 1
    assert capsys.readouterr().err == f"error: {kind}.json: is a {kind}; must be a file\n"


def test_compare_reads_what_a_shell_hands_over(capsys):
    reading, writing = os.pipe()
    os.write(writing, b'{"summary": []}')
    os.close(writing)
    assert compare.main([f"/dev/fd/{reading}"]) == 1
    os.close(reading)
    assert "got JSON with the keys summary; must be a results file" in capsys.readouterr().err
