"""The runs of a project at one time: its trainings, with the parameters they had."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from distillation.base.files import write_text
from distillation.base.methods import CONTROL
from distillation.base.mistakes import shorten
from distillation.base.yaml_text import YamlError, parse_yaml
from distillation.compare.parameters import flatten
from distillation.compare.pipeline import (
    is_locked,
    md5_of,
    md5_of_teacher,
    needs_teacher,
    read_lock,
    select,
    why_stale,
)
from distillation.compare.records import (
    CompareError,
    NoTrainingsError,
    SeedsFile,
    Training,
    read_json,
    teacher_of,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PARAMS = "params.yaml"
MADE_WITH = "made_with"
"""A folder of metrics, where `python -m distillation` says what each method was made with."""

RowKey = tuple[str, str | frozenset[tuple[str, Any]]]
"""A method with its parameters, or with the only source where they are not known."""

TEACHER = "teacher"
"""Is trained like a method, and is none to compare."""

_OWN_PIPELINE = Path(__file__).parents[2] / "dvc.yaml"  # not there where the package is alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The trainings of one method in one source."""

    source: str
    method: str
    data: str
    """What the images are."""
    params: Mapping[str, Any] | None
    """Flat, as `parameters.flatten` returns them; None: not known."""
    pipeline: bytes | None
    """The `dvc.yaml` that says which of them matter."""
    teacher: Mapping[str, str]
    """What tells the teacher from others, by what that is; empty where there is none, or none
    is known."""
    trainings: Sequence[Training]

    def matter(self, method: str) -> Mapping[str, Any]:
        """Return the parameters that can matter to a method beside this one; see `select`."""
        return select(method, self.params or {}, self.pipeline, source=self.source)

    def key(self, method: str) -> RowKey:
        """Return what the method shares with the runs it can be pooled with."""
        if self.params is None:
            return method, self.source
        return method, frozenset(self.matter(method).items())


def read_folder(metrics: str, notes: list[str], *, name: str | None = None) -> list[Run]:
    """Return the runs of a metrics folder, as `read_runs` does."""
    from fsspec.implementations.local import LocalFileSystem  # 0.1 s that --help does without

    folder = PurePosixPath(Path(metrics).resolve().as_posix())
    return read_runs(LocalFileSystem(), folder, notes, name=name or metrics)


def read_runs(
    files: AbstractFileSystem, metrics: PurePosixPath, notes: list[str], *, name: str
) -> list[Run]:
    """Return the run of every method whose parameters are known, and were not changed since.

    Args:
        files: where the project is.
        metrics: its metrics folder. The parameters lie beside it, or in `MADE_WITH` each method's.
        notes: gets a sentence on each method that was not, or of which that is not known.
        name: what the user calls the project.

    Raises:
        NoTrainingsError: there are no trainings.
        CompareError: a file cannot be used.
    """

    def read(path: str) -> bytes | None:
        place = str(metrics.parent / path)
        return files.cat_file(place) if files.isfile(place) else None

    folder = f"{metrics.name}/seeds"
    listed = files.ls(f"{metrics}/seeds", detail=False) if files.isdir(f"{metrics}/seeds") else []
    paths = [PurePosixPath(path) for path in sorted(listed)]
    methods = [path.stem for path in paths if path.suffix == ".json" and path.stem != TEACHER]
    if not methods:
        raise NoTrainingsError(
            f"{name}: no {folder}/<method>.json; must be where the pipeline has run (dvc repro "
            "writes them)"
        )
    params = _parse_params(f"{name}: {PARAMS}", read(PARAMS))
    lock_text = read("dvc.lock")
    # Where no DVC runs the stages, those of a folder belong together.
    baseline = {} if lock_text is not None else teacher_of(read(f"{metrics.name}/baseline.json"))
    lock, pipeline = read_lock(name, lock_text), read("dvc.yaml")
    runs = []
    for method in methods:
        path, record = f"{folder}/{method}.json", f"{metrics.name}/{MADE_WITH}/{method}.yaml"
        place, text, made_with = f"{name}: {path}", read(path) or b"", read(record)
        content = SeedsFile.check(place, read_json(place, text))
        own = params
        if made_with is not None:
            own = _parse_made_with(f"{name}: {record}", made_with, text)
            if own is None:
                notes.append(f"{place} is not the file that {record} speaks of.")
        elif params is not None and not is_locked(path, text, lock):
            notes.append(
                f"{place} is not the file dvc.lock speaks of: whether it was made with {PARAMS} as "
                "it stands cannot be checked."
            )
        elif params is not None and (reason := why_stale(path, flatten(params), lock)):
            notes.append(f"Left out: {method} of {name} ({reason}).")
            continue
        md5 = md5_of_teacher(path, lock) if is_locked(path, text, lock) else None
        teacher = baseline if md5 is None else {"weights": md5}
        runs += make_runs(
            name, {method: content}, notes, params=own, pipeline=pipeline, teacher=teacher
        )
    return runs


def write_made_with(metrics: Path, method: str, params: Mapping[str, Any]) -> None:
    """Keep the parameters of a method beside its results, where no DVC does.

    Args:
        metrics: the folder of metrics, which has `seeds/<method>.json`.
        method: whose results they are.
        params: all of them, ready for YAML.
    """
    folder = metrics / MADE_WITH
    folder.mkdir(exist_ok=True)
    md5 = md5_of((metrics / "seeds" / f"{method}.json").read_bytes())
    text = yaml.safe_dump({"seeds_md5": md5, "params": params}, sort_keys=False, allow_unicode=True)
    write_text(folder / f"{method}.yaml", text)


def _parse_made_with(place: str, text: bytes, seeds_file: bytes) -> Mapping[str, Any] | None:
    """Return the parameters a method was made with; None where they are those of another file."""
    content = _parse_params(place, text) or {}
    params = content.get("params")
    if not isinstance(params, dict):
        raise CompareError(f"{place}: params: got {shorten(params)}; must be parameters")
    return params if content.get("seeds_md5") == md5_of(seeds_file) else None


def make_runs(
    source: str,
    methods: Mapping[str, SeedsFile],
    notes: list[str],
    *,
    params: Mapping[str, Any] | None,
    pipeline: bytes | None = None,
    teacher: Mapping[str, str],
) -> list[Run]:
    """Return one run per method.

    Args:
        source: what the user calls the place they are from.
        methods: the trainings by method.
        notes: gets a sentence where no pipeline is known.
        params: as they stand in a parameter file; None where they are not known.
        pipeline: the source's own `dvc.yaml`; None: that of the project this package is part of.
        teacher: as in `Run`, of those methods that have one.

    Raises:
        CompareError: the parameters lack a seed.
    """
    seed = None if params is None else params.get("seed")
    if params is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise CompareError(
            f"{source}: parameters: seed: got {shorten(seed)}; must be a whole number"
        )
    if pipeline is None and _OWN_PIPELINE.is_file():
        pipeline = _OWN_PIPELINE.read_bytes()
    if pipeline is None and params is not None:
        notes.append(f"{source}: no dvc.yaml: every parameter is taken to matter to every method.")
    return [
        Run(
            source=source,
            method=method,
            data=content.data,
            params=None if params is None else flatten(params),
            pipeline=pipeline,
            teacher=teacher if _needs_teacher(method, pipeline, source=source) else {},
            trainings=content.seeds,
        )
        for method, content in methods.items()
    ]


def _needs_teacher(method: str, pipeline: bytes | None, *, source: str) -> bool:
    return method != CONTROL if pipeline is None else needs_teacher(method, pipeline, source=source)


def _parse_params(place: str, text: bytes | None) -> Mapping[str, Any] | None:
    if text is None:
        return None
    try:
        params = parse_yaml(text)
    except YamlError as error:
        raise CompareError(f"{place}: {error}") from error
    if not isinstance(params, dict):
        raise CompareError(f"{place}: got {shorten(params)}; must be parameters, as key: value")
    return params
