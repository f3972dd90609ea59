"""The stages of a `dvc.yaml` as DVC resolves them, and which of them a change would run again."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo

CODE = ("distillation", "stages")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What of a stage decides whether DVC runs it again, but for the contents of files."""

    command: str
    deps: tuple[str, ...]
    params: dict[str, Any]
    """The parameters it depends on by dotted name; all of them where it tracks the file."""
    outs: tuple[str, ...]

    @property
    def code(self) -> list[str]:
        """The files and folders of code among its dependencies."""
        return [dep for dep in self.deps if dep.partition("/")[0] in CODE]


class ResolvedPipeline:
    """A `dvc.yaml` with parameters, in a folder of its own: nothing of it is ever run."""

    def __init__(self, folder: Path, repository: Path):
        self.folder = folder
        for name in ("dvc.yaml", ".dvcignore"):
            (folder / name).write_bytes((repository / name).read_bytes())
        Repo.init(str(folder), no_scm=True).close()

    def stages(self, values: dict[str, Any]) -> dict[str, Stage]:
        """Return all stages by name, in the order of the file, under these parameters."""
        text = yaml.safe_dump(values)
        (self.folder / "params.yaml").write_text(text, encoding="utf-8")
        with Repo(str(self.folder)) as repo:
            return {stage.name: _read(stage) for stage in repo.index.stages}

    def users(self, path: str, stages: dict[str, Stage]) -> set[str]:
        """Return the stages that an edit of a file runs again."""
        with Repo(str(self.folder)) as repo:
            if repo.dvcignore.is_ignored_file(str(self.folder / path)):
                return set()
        return {
            name for name, stage in stages.items() if any(covers(dep, path) for dep in stage.deps)
        }


def covers(dep: str, path: str) -> bool:
    """Tell whether a dependency is a file or a folder around it."""
    return path == dep or path.startswith(f"{dep}/")


def with_value(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return the parameters with another value of one, which may be an entry of a mapping."""
    outer, _, inner = key.partition(".")
    return {**values, outer: {**values[outer], inner: value} if inner else value}


def changed(before: dict[str, Stage], after: dict[str, Stage]) -> set[str]:
    """Return the stages that other parameters run again, those that are new with them."""
    return {name for name, stage in after.items() if before.get(name) != stage}


def _read(stage: Any) -> Stage:
    params: dict[str, Any] = {}
    for dep in stage.params:
        params |= dep.read_params()
    return Stage(
        command=stage.cmd,
        deps=tuple(dep.def_path for dep in stage.deps if dep not in stage.params),
        params=params,
        outs=tuple(out.def_path for out in stage.outs),
    )
