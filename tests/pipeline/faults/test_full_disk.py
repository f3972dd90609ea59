"""Every stage on a disk that is full at a random point: one sentence, nothing half-written.

Once there is room again, the same command ends with the same bits.
"""

import re
import resource
import shutil
import tempfile

import pytest

from distillation.cli.train import main as train
from tests.helpers.damage import differences, remove
from tests.helpers.small_disk import PAGE, fill, fill_with_files, mounted
from tests.helpers.stage_runs import STAGES, check_whole, do, options_without_dvc, outputs

END = "; what was written before is whole; then type the same command again\\n"
DATABASE = rf"error: DVC's own database on this machine: .*; make room in the folder .*{END}"
FULL = re.compile(
    rf"error: \S*/\S+: the disk is full \(.*\); make room, .*{END}"
    r"|error: .* needs [\d.]+ GB and its disk has .* free; make room, or .*\n"
    f"|{DATABASE}"
)
NO_MORE_FILES = re.compile(
    rf"error: \S*/\S+: the disk can hold only \d+ more files .*{END}|{DATABASE}"
)
TOO_LARGE = re.compile(
    rf"error: \S*/\S+: files may not be as large as it becomes, .*{END}|{DATABASE}"
)


@pytest.fixture
def disk(tmp_path, pipeline, monkeypatch):
    """Return a small disk that holds a run, and everything temporary."""
    with mounted(tmp_path / "disk") as folder:
        settle(folder, pipeline.root, monkeypatch)
        yield folder


def settle(folder, run, monkeypatch):
    """Let everything of a run lie in a folder: what is temporary and DVC's own database too."""
    without = shutil.ignore_patterns("cache", "tmp", "hooks", "__pycache__")
    shutil.copytree(run, folder, symlinks=True, ignore=without, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))


def check_refused(status, capsys, sentence=FULL):
    told = capsys.readouterr().err
    error = "".join(line for line in told.splitlines(keepends=True) if line.startswith("error: "))
    assert status == 1, told
    assert sentence.fullmatch(error), told
    assert "Traceback" not in told
    assert error.count("\n") == 1


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_is_full_at_a_random_point(
    stage, number, disk, pipeline, attempt, draw, capsys
):
    outs = outputs(pipeline.root, stage)
    pages = 0
    for out in outs:
        remove(disk / out)  # as DVC does
        path = pipeline.root / out
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        pages += sum(-(-file.stat().st_size // PAGE) for file in files)
    pages_left = draw.randrange(pages)
    attempt(f"full disk: {stage}", f"{pages_left} of {pages} pages left")
    filler = fill(disk, pages_left=pages_left)
    check_refused(do(stage, disk), capsys)
    check_whole(disk, pipeline.root)
    filler.unlink()
    assert do(stage, disk) == 0
    assert differences(disk, pipeline.root) == []


@pytest.mark.parametrize("number", range(4))
def test_a_run_without_dvc_on_a_full_disk(number, disk, tmp_path, attempt, draw, capsys):
    pages_left = draw.randrange(1000)
    attempt("full disk: python -m distillation", f"{pages_left} pages left")
    options = options_without_dvc(disk)
    filler = fill(disk, pages_left=pages_left)
    check_refused(train([*options, "--run-dir", "run"]), capsys)
    filler.unlink()
    assert train([*options, "--run-dir", "run"]) == 0
    whole = tmp_path / "whole"
    assert train([*options, "--run-dir", str(whole)]) == 0
    assert differences(disk / "run", whole) == []


@pytest.mark.parametrize("stage", ["prepare_data", "train_teacher", "teacher_targets", "summarize"])
def test_a_disk_that_can_hold_no_more_files(
    stage, tmp_path, pipeline, attempt, draw, capsys, monkeypatch
):
    with mounted(tmp_path / "disk", options="size=48m,nr_inodes=3000") as disk:
        settle(disk, pipeline.root, monkeypatch)
        files_left = draw.randrange(5)
        attempt("no more files (inodes)", f"{stage}, {files_left} left")
        for out in outputs(pipeline.root, stage):
            remove(disk / out)
        fillers = fill_with_files(disk, files_left=files_left)
        check_refused(do(stage, disk), capsys, NO_MORE_FILES)
        check_whole(disk, pipeline.root)
        shutil.rmtree(fillers)
        assert do(stage, disk) == 0
        assert differences(disk, pipeline.root) == []


@pytest.mark.parametrize("stage", ["prepare_data", "train_control", "export_student"])
def test_a_limit_on_the_size_of_files(stage, disk, pipeline, attempt, draw, capsys):
    outs = [disk / out for out in outputs(pipeline.root, stage)]
    sizes = [p.stat().st_size for out in outs for p in (out, *out.rglob("*")) if p.is_file()]
    limit = draw.randrange(max(sizes))
    attempt("limit on the size of files", f"{stage}, {limit} bytes")
    for out in outs:
        remove(out)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        status = do(stage, disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    check_refused(status, capsys, TOO_LARGE)
    check_whole(disk, pipeline.root)
    assert do(stage, disk) == 0
    assert differences(disk, pipeline.root) == []
