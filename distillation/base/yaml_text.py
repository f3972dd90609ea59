"""Read YAML from strangers: plain values, each key once, and no surprise in how they are read.

PyYAML's safe loader makes no objects. It still follows YAML 1.1, where 1e-3 is a text and 010 is 8,
takes the last of two equal keys, and lets a few lines of aliases stand for gigabytes. Here 1e-3 is
a number, whatever is not written in plain decimals (010, 0x10, 1_000, 1:30) is a text, and equal
keys, aliases and tags are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from distillation.base.errors import DistillationError
from distillation.base.regular_files import NotAFileError, open_regular

MAX_FILE_BYTES = 100_000
"""Size of the largest file that is read: twenty times that of a parameter file with comments."""

_BOOL, _NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"

PLAIN_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$")
"""10, -0.5 or 1e-3, without a leading 0."""


class YamlError(DistillationError):
    """A text or a file is no YAML that is read here; the message is one line."""


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's numbers, without aliases, tags and equal keys."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own table
        first: [(tag, pattern) for tag, pattern in known if tag in (_BOOL, _NULL)]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if event.anchor is not None or getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors, aliases and tags (&, *, !) are not read; write the value itself",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the safe loader refuses it itself
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is given twice; keep one of them",
                    problem_mark=key.start_mark,
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# Longer ones are floats: python reads no whole number of more than 4,300 digits.
_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?(0|[1-9][0-9]{,99})$"), [*"-+0123456789"])
_Loader.add_implicit_resolver(_FLOAT, PLAIN_NUMBER, [*"-+.0123456789"])


def parse_yaml(text: str | bytes) -> Any:
    """Return the value that a YAML text stands for.

    Raises:
        YamlError: the text is not valid, or holds what is not read here.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlError(f"not valid YAML: {place}{error.problem}") from error
    except yaml.YAMLError as error:
        raise YamlError(f"not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise YamlError("not valid YAML: lists or mappings are nested too deep") from error


def read_yaml(path: Path) -> Any:
    """Return the value that a small YAML file holds.

    Raises:
        YamlError: the file cannot be read, is too large, or is not valid.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except NotAFileError as error:
        raise YamlError(f"{path}: is a {error.kind}; must be a file") from error
    except OSError as error:
        raise YamlError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_FILE_BYTES:
        raise YamlError(f"{path}: is too large; must have at most {MAX_FILE_BYTES:,} bytes")
    try:
        return parse_yaml(content)
    except YamlError as error:
        raise YamlError(f"{path}: {error}") from error
