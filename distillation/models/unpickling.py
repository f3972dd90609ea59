"""Read files of torch.save without running anything they name.

torch's own `weights_only` reader builds tensors and plain containers. Whatever else such a file
names (settings, paths, numbers of numpy, classes of the training code) is replaced by an empty
stand-in before the reader sees it: the class is never imported, let alone called. Names that only
an attack has a use for are refused.
"""

from __future__ import annotations

import argparse
import pickle
import pickletools
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from distillation.base.regular_files import UNPACKED_IN_PARTS


class UnreadableError(ValueError):
    """A file of torch.save cannot be read; the message completes `PATH, which …`."""


DAMAGED = "is damaged or cut short; fetch or write it again"
SAVE_STATE_DICT = "save model.state_dict() by torch.save or safetensors"
WHOLE_MODEL = f"holds a whole pickled model; {SAVE_STATE_DICT}"
BY_PICKLE = f"was written by pickle, not by torch.save; {SAVE_STATE_DICT}"


class StandIn:
    """Takes the place of an object whose class is not loaded, and keeps nothing of it."""

    of = ""
    """The full name of the class."""

    def __new__(cls, *_: Any) -> StandIn:
        """Take the arguments of any constructor."""
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _MappingStandIn:
    """The same for classes that may be mappings, which torch's reader fills item by item."""

    of = ""

    def __new__(cls, *_: Any) -> Any:
        value: Any = OrderedDict()
        value.stand_in_of = cls.of
        return value


class _ListStandIn:
    """The same for classes that torch's reader fills as a list."""

    def __new__(cls, *_: Any) -> Any:
        return []


HARMLESS = {
    "argparse.Namespace", "collections.defaultdict", "collections.deque",
    "copyreg._reconstructor", "datetime.date", "datetime.datetime", "datetime.time",
    "datetime.timedelta", "datetime.timezone", "decimal.Decimal", "enum.Enum",
    "fractions.Fraction", "functools.partial", "random.Random", "re._compile",
    "types.SimpleNamespace", "uuid.UUID",
    *(f"builtins.{name}" for name in (
        "bool", "bytes", "bytearray", "complex", "dict", "float", "frozenset", "int", "list",
        "object", "range", "set", "slice", "str", "tuple")),
}  # fmt: skip
"""Names of the standard library that stand in files of settings."""
HARMLESS_MODULES = ("pathlib", "typing")
_READ_BY_TORCH = {"collections.OrderedDict", "collections.Counter", "_codecs.encode"}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def load_zip(path: Path) -> Any:
    """Return what a zip file of torch.save holds; tensors stay in the file until they are used.

    Raises:
        UnreadableError: it is damaged, or names something that could run code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            (member,) = (n for n in members if n.count("/") == 1 and n.endswith("/data.pkl"))
            if archive.getinfo(member).compress_type not in UNPACKED_IN_PARTS:
                raise UnreadableError(DAMAGED)
            with archive.open(member) as stream:
                names = set(_names(stream))
    except UnreadableError:
        raise
    # zipfile has its own errors, and those of whatever it stumbles over.
    except Exception as error:
        raise UnreadableError(DAMAGED) from error
    return _load(path, names, mmap=True)


def load_legacy(path: Path) -> Any:
    """Return what a file of torch.save before version 1.6 holds.

    Raises:
        UnreadableError: it is damaged, made by pickle itself, or names something that could run
            code.
    """
    with path.open("rb") as stream:
        magic = _LEGACY_MAGIC.to_bytes(10, "little")
        if magic not in stream.read(64):
            raise UnreadableError(BY_PICKLE)
        stream.seek(0)
        # Magic number, protocol, system; then the object.
        names = {name for _ in range(4) for name in _names(stream)}
    return _load(path, names, mmap=False)


def _load(path: Path, names: set[str], *, mmap: bool) -> Any:
    _check_names(names)
    names = names - {"argparse.Namespace"}
    # A class that is no mapping may be a key, or have a state that a mapping cannot take.
    for mapping in (True, False):
        stand_ins: list[Any] = [(_stand_in(name, mapping=mapping), name) for name in names]
        try:
            with torch.serialization.safe_globals([argparse.Namespace, *stand_ins]):
                return _load_tensors(path, mmap=mmap)
        except pickle.UnpicklingError as error:
            kind = f"holds objects that only their own code can read; {SAVE_STATE_DICT}"
            problem = UnreadableError(WHOLE_MODEL if _names_layers(names) else kind)
            problem.__cause__ = error
        # Whatever a damaged file makes the reader stumble over (struct.error, IndexError, …).
        except Exception as error:
            problem = UnreadableError(DAMAGED)
            problem.__cause__ = error
    raise problem


def _load_tensors(path: Path, *, mmap: bool) -> Any:
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    # torch believes this ending of a path, but not of an open file.
    with path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_names(names: set[str]) -> None:
    """Raise if a name of the standard library is not known to be harmless."""
    for name in sorted(names):
        package, module = name.split(".", 1)[0], name.rpartition(".")[0]
        if package not in sys.stdlib_module_names or name in _READ_BY_TORCH | HARMLESS:
            continue
        if module.split(".")[0] not in HARMLESS_MODULES:
            if _names_layers(names):
                raise UnreadableError(WHOLE_MODEL)
            raise UnreadableError(
                f"names {name} and so could run code; allowed: tensors and plain settings: "
                f"{SAVE_STATE_DICT}"
            )


def _names_layers(names: set[str]) -> bool:
    return any(name.startswith("torch.nn.modules.") for name in names)


def _names(stream: BinaryIO | Any) -> Iterator[str]:
    """Yield the dotted names in one pickle, without reading it as one.

    Raises:
        UnreadableError: the pickle is damaged, or of a protocol that torch.save does not write.
    """
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                raise UnreadableError(BY_PICKLE)
            if opcode.name == "GLOBAL":
                module, _, name = str(argument).partition(" ")
                # Files of Python 2, as torch's reader maps them.
                if (module, name) in NAME_MAPPING:
                    module, name = NAME_MAPPING[module, name]
                yield f"{IMPORT_MAPPING.get(module, module)}.{name}"
    except UnreadableError:
        raise
    except Exception as error:
        raise UnreadableError(DAMAGED) from error


def _stand_in(name: str, *, mapping: bool) -> type:
    """Return a class of its own for a name, which may be filled like a mapping or not."""
    package = name.split(".", 1)[0]
    is_value = package in ("numpy", "torch") or package in sys.stdlib_module_names
    base = _MappingStandIn if mapping and not is_value else StandIn
    if name == "collections.defaultdict":
        base = _MappingStandIn
    if name == "collections.deque":
        base = _ListStandIn
    return type(base.__name__, (base,), {"of": name})


def class_of_stand_in(value: Any) -> str | None:
    """Return the name of the class that a value stands in for, or None."""
    if isinstance(value, StandIn):
        return value.of
    return getattr(value, "stand_in_of", None) if isinstance(value, OrderedDict) else None
