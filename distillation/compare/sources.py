"""Turn what the user names into runs: files, folders, revisions, experiments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from distillation.base.regular_files import NotAFileError, open_regular
from distillation.compare.experiments import is_experiments, read_experiments_json
from distillation.compare.projects import Run, make_runs, read_folder
from distillation.compare.records import (
    JSON_SOURCES,
    CompareError,
    NoTrainingsError,
    ResultsFile,
    SeedsFile,
    read_json,
)

WORK_TREE = "metrics"
_OPEN_FILES = (Path("/dev/fd"), Path("/proc/self/fd"))


def read_sources(sources: Sequence[str], notes: list[str], *, with_experiments: bool) -> list[Run]:
    """Return the runs of every source.

    Args:
        sources: results files, outputs of `dvc exp show --json` (`-`: standard input), metrics
            folders, git revisions, names of experiments; none: the work tree's metrics.
        notes: gets sentences on what is left out or not sure.
        with_experiments: read all DVC experiments of the repository too.

    Raises:
        CompareError: a source cannot be found or used, or there is nothing to compare.
    """
    runs: list[Run] = []
    try:
        for source in sources:
            runs += _read(source, notes)
        if not sources:
            runs += read_folder(WORK_TREE, notes)
    except NoTrainingsError:
        if sources or not with_experiments:
            raise
        notes.append(f"Left out: {WORK_TREE} (no {WORK_TREE}/seeds).")
    except OSError as error:
        raise CompareError(f"{error.filename}: cannot be read ({error.strerror})") from error
    if with_experiments:
        from distillation.compare.revisions import read_experiments  # DVC takes half a second

        runs += read_experiments(notes)
    if not runs:
        raise CompareError(" ".join(["nothing to compare: no source has trainings.", *notes]))
    return runs


def _read(source: str, notes: list[str]) -> list[Run]:
    path = Path(source)
    if source == "-":
        return _read_json("standard input", sys.stdin.buffer.read(), notes)
    if path.is_dir():
        return read_folder(source, notes)
    if path.exists() or path.suffix == ".json":
        return _read_json(source, _read_file(path), notes)
    from distillation.compare.revisions import read_revision

    return read_revision(source, notes)


def _read_file(path: Path) -> bytes:
    """Read a file, or what a shell hands over by `<(…)`; no other pipe, and no device."""
    if path.parent in _OPEN_FILES and path.is_fifo():
        return path.read_bytes()
    try:
        with open_regular(path) as file:
            return file.read()
    except NotAFileError as error:
        raise CompareError(f"{path}: is a {error.kind}; must be a file") from error


def _read_json(source: str, text: bytes, notes: list[str]) -> list[Run]:
    content = read_json(source, text)
    if is_experiments(content):
        return read_experiments_json(source, content, notes)
    if not isinstance(content, dict) or "methods" not in content:
        keys = f"the keys {', '.join(content)}" if isinstance(content, dict) else "no mapping"
        raise CompareError(f"{source}: got JSON with {keys[:100]}; must be {JSON_SOURCES}")
    results = ResultsFile.check(source, content)
    methods = {
        method: SeedsFile(data=results.data, seeds=record.seeds)
        for method, record in results.methods.items()
    }
    return make_runs(source, methods, notes, params=results.params, teacher=results.baseline.signs)
