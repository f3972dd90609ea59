"""Whether a metrics file was made with the parameters that stand beside it.

A stage that is not run again leaves its files as they are: after `dvc exp run -S alpha=0.7`, those
of methods that are no longer listed are still those of the old alpha. DVC writes down in
`dvc.lock` what every stage was last run with; that is compared here.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import yaml

from distillation.compare.parameters import flatten, show
from distillation.compare.runs import CompareError
from distillation.compare.trees import Tree

_LOCK = "dvc.lock"
_PARAMS = "params.yaml"
_SEEDS = "seeds"


@dataclasses.dataclass(frozen=True)
class _Output:
    """A file or folder a stage made."""

    stage: str
    entry: Mapping[str, Any]
    """What the lock file says of the stage."""
    md5: str


class Locks:
    """What the lock file of a project says of the files its stages made."""

    def __init__(self, outputs: Mapping[str, _Output]) -> None:
        self._outputs = outputs

    def is_outdated(self, path: str, content: bytes) -> bool:
        """Tell whether a stage makes this file, but not with this content under DVC."""
        output = self._outputs.get(path)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return output is not None and output.md5 != md5

    def why_stale(self, path: str, params: Mapping[str, Any]) -> str | None:
        """Say what tells a file, or what it was made from, from what parameters would make now.

        Args:
            path: the file, from the root.
            params: flat parameters.

        Returns:
            None where nothing does. `seeds` is not asked for: each record has its own.
        """
        if path not in self._outputs:
            return None
        stage, entry = self._outputs[path].stage, self._outputs[path].entry
        for name, value in flatten(entry.get("params", {}).get(_PARAMS, {})).items():
            if name != _SEEDS and value != params.get(name):
                return (
                    f"{stage} ran with {name}={show(value)}, {_PARAMS} has "
                    f"{name}={show(params.get(name))}"
                )
        for dep in entry.get("deps", []):
            made = self._outputs.get(dep["path"])
            if made is not None and made.md5 != dep.get("md5"):
                return f"{stage} ran before {dep['path']} was made anew"
            if reason := self.why_stale(dep["path"], params):
                return reason
        return None


def read_locks(tree: Tree) -> Locks:
    """Read a project's lock file; where there is none, nothing is known to be stale.

    Raises:
        CompareError: one is damaged.
    """
    try:
        outputs = _parse(tree.read(_LOCK) or b"stages: {}")
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise CompareError(
            f"{tree.name}: {_LOCK}: no lock file of DVC ({type(error).__name__}); dvc repro "
            "writes it anew"
        ) from error
    return Locks(outputs)


@functools.cache
def _parse(content: bytes) -> dict[str, _Output]:
    # The fast reader where there is one; experiments often share a lock file.
    lock = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {
        out["path"]: _Output(stage, entry, out.get("md5", ""))
        for stage, entry in lock["stages"].items()
        for out in entry.get("outs", [])
    }
