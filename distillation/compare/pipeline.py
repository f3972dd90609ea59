"""What DVC's files say of a metrics file: which parameters matter to it, and whether it is stale.

`dvc.yaml` and `dvc.lock` are read as YAML. DVC's resolver knows of the further methods those alone
that `methods` lists, and `dvc status` asks of the work tree alone; results outlast both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from distillation.base.json_text import parse_json
from distillation.base.workspace import Workspace
from distillation.compare.parameters import flatten, show
from distillation.compare.records import CompareError

_SEEDS = ("seed", "seeds")  # runs that differ in nothing else are the same run again
_PARAMS = "params.yaml"
_WHOLE_FILE = ""
_ANY = "*"
_NO_STAGES = b"stages: {}"
_LARGEST_BYTES = 2**20
"""Of a file, and of a stage with all that it repeats; DVC's are thousands."""
_TEACHER = str(Workspace().teacher_weights)
_CHECKED = str(Workspace().checked)
"""Always the same: nothing of what it is made from matters to what is made from it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of `dvc.yaml`, or of `dvc.lock`, which has the values its last run had."""

    name: str
    params: Mapping[str, Any]
    """By name."""
    deps: Mapping[str, str | None]
    """MD5 by path, as in `outs`."""
    outs: Mapping[str, str | None]

    def makes(self, path: str) -> bool:
        """Tell whether a path is an output, lies in one, or holds one."""
        pairs = [(f"{path}/", f"{out}/") for out in self.outs]
        return any(asked.startswith(out) or out.startswith(asked) for asked, out in pairs)


def select(
    method: str, params: Mapping[str, Any], pipeline: bytes | None, *, source: str
) -> dict[str, Any]:
    """Return the flat parameters that can matter to a method by a `dvc.yaml`, seeds left out.

    They are those of the stage that trains the method and of all it builds on. A parameter that no
    stage names is taken to matter; so is every one where no stage trains the method.
    """
    with _naming(f"{source}: dvc.yaml"):
        matter, named = _parameter_names(method, pipeline or _NO_STAGES)
    if any(name.endswith(f".{method}") and name not in params for name in matter):
        matter = {_WHOLE_FILE}  # the stage of further methods would take it, but did not train it
    return {
        name: value
        for name, value in params.items()
        if name not in _SEEDS
        and (name.partition(".")[0] not in named or any(_covers(other, name) for other in matter))
    }


def read_lock(source: str, text: bytes | None) -> Sequence[Stage]:
    """Read a `dvc.lock`; raises `CompareError`, which names the source, for a damaged one."""
    with _naming(f"{source}: dvc.lock"):
        return _read(text or _NO_STAGES)


def is_locked(path: str, content: bytes, lock: Sequence[Stage]) -> bool:
    """Tell whether a file is what a stage made; True where no stage has run at all."""
    return not lock or {stage.outs.get(path) for stage in lock} - {None} == {md5_of(content)}


def md5_of(content: bytes) -> str:
    """Return the MD5 that DVC knows a file by."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def why_stale(path: str, params: Mapping[str, Any], lock: Sequence[Stage]) -> str | None:
    """Return what tells a file, or what it was made from, from what parameters would make now.

    A stage that is not run again leaves its files as they are: after `dvc exp run -S alpha=0.7`,
    those of methods that are no longer listed are still those of the old alpha. `seeds` is not
    asked for: each record has its own.
    """
    made = {out: md5 for stage in lock for out, md5 in stage.outs.items()}
    for stage in _builders(path, lock):
        asked = {name: value for name, value in stage.params.items() if name != "seeds"}
        old = flatten(asked)
        # {momentum: 0.9} in the place of null: a name that the stage's run did not have.
        new = {name: v for name, v in params.items() if any(_covers(n, name) for n in asked)}
        for name in [*old, *new]:
            if old.get(name) != new.get(name):
                return (
                    f"{stage.name} ran with {name}={show(old.get(name))}, "
                    f"{_PARAMS} has {name}={show(new.get(name))}"
                )
        for dep, md5 in stage.deps.items():
            if made.get(dep, md5) != md5:
                return f"{stage.name} ran before {dep} was made anew"
    return None


def needs_teacher(method: str, pipeline: bytes | None, *, source: str) -> bool:
    """Tell whether a method's students are made from a teacher, by a `dvc.yaml`."""
    with _naming(f"{source}: dvc.yaml"):
        stages = _builders(f"metrics/seeds/{method}.json", _read(pipeline or _NO_STAGES, method))
    return any(stage.makes(_TEACHER) for stage in stages)


def md5_of_teacher(path: str, lock: Sequence[Stage]) -> str | None:
    """Return which teacher's weights a file was made from; None: none, or no stage has run."""
    return next((s.deps[_TEACHER] for s in _builders(path, lock) if _TEACHER in s.deps), None)


@functools.cache
def _parameter_names(method: str, pipeline: bytes) -> tuple[set[str], set[str]]:
    """Return the parameters a method depends on, and the top-level names that any stage reads."""
    builders = _builders(f"metrics/seeds/{method}.json", _read(pipeline, method))
    matter = {name for stage in builders for name in stage.params} if builders else {_WHOLE_FILE}
    named = {name.partition(".")[0] for stage in _read(pipeline, _ANY) for name in stage.params}
    return matter, named


def _covers(group: str, name: str) -> bool:
    return group in (_WHOLE_FILE, name) or name.startswith(f"{group}.")


def _builders(path: str, stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages that make a file or what it is made from, the last one first."""
    wanted, builders = [path], []
    while wanted:
        path = wanted.pop()
        for stage in stages:
            if stage not in builders and stage.makes(path):
                builders.append(stage)
                wanted += (dep for dep in stage.deps if dep != _CHECKED)
    return builders


@contextlib.contextmanager
def _naming(place: str) -> Iterator[None]:
    try:
        yield
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CompareError(f"{place}: {type(error).__name__}; must be as DVC writes it") from error


@functools.cache
def _read(text: bytes, item: str = _ANY) -> Sequence[Stage]:
    """Read stages; of those there are for each item of a list, that of one item alone."""
    if len(text) > _LARGEST_BYTES:
        raise ValueError("too large")
    # The fast reader where there is one.
    bodies = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    stages: list[Stage] = []
    for name in sorted(bodies, key=lambda name: not {"foreach", "matrix"} & {*bodies[name]}):
        body = bodies[name]
        if "matrix" in body:
            body = {**body, "vars": [{"item": dict.fromkeys(body["matrix"], item)}]}
        elif "foreach" in body:
            body = {**body["do"], "vars": [{"item": item}]}
        stage = _parse(name, body)
        # A method with a stage of its own is none of the list; dvc.lock keeps what has moved.
        stages = [other for other in stages if not any(map(other.makes, stage.outs))]
        stages.append(stage)
    return stages


def _count(value: Any, most: int) -> int:
    """Count what a value holds, what several places share as often; stops above a number."""
    if isinstance(value, Mapping):
        inner: Iterable[Any] = (*value, *value.values())
    elif isinstance(value, list):
        inner = value
    else:
        return 1
    number = 1
    for one in inner:
        number += _count(one, most - number)
        if number > most:
            raise ValueError("too large")
    return number


def _parse(name: str, body: Mapping[str, Any]) -> Stage:
    _count(body, _LARGEST_BYTES)
    text = json.dumps(body)
    for variables in body.get("vars", []):
        for variable, value in variables.items() if isinstance(variables, dict) else ():
            for key, inner in flatten({variable: value}).items():
                # Within JSON's quotation marks.
                text = text.replace(f"${{{key}}}", json.dumps(str(inner))[1:-1])
                if len(text) > _LARGEST_BYTES:
                    raise ValueError("too large")
    body = parse_json(text)
    outs = [entry for kind in ("outs", "metrics", "plots") for entry in body.get(kind, [])]
    return Stage(
        name=name,
        params=_params(body.get("params", [])),
        deps=dict(map(_path, body.get("deps", []))),
        outs=dict(map(_path, outs)),
    )


def _params(entries: Any) -> dict[str, Any]:
    """Return what a stage reads of `params.yaml`: names, lists of names, or names with values."""
    params: dict[str, Any] = {}
    for entry in [entries] if isinstance(entries, dict) else entries:
        names = entry.get(_PARAMS, ()) if isinstance(entry, dict) else [entry]
        if names is None:
            names = [_WHOLE_FILE]
        params |= names if isinstance(names, dict) else dict.fromkeys(names)
    return params


def _path(entry: Any) -> tuple[str, str | None]:
    """Return path and MD5 of an entry `path`, `{path: options}` or `{path: ..., md5: ...}`."""
    if isinstance(entry, str):
        return posixpath.normpath(entry), None
    if "path" in entry:
        return entry["path"], entry.get("md5")
    return _path(next(iter(entry)))
