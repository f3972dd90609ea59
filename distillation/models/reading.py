"""Read a checkpoint from anywhere: a file, a folder of Hugging Face's form, or the Hub.

`read_checkpoint` finds the file, tells its kind by its content, picks out the one state dict and
returns it with what the file says of its model. No code in a file is run. Fitting the tensors to
a model is left to `adapting` and `classifier`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models._hub import _EXT_PRIORITY, _PREFERRED_FILES
from torch import Tensor

from distillation.base.json_text import parse_json
from distillation.base.printable import printable
from distillation.models.checksums import check_weights
from distillation.models.hub import fetch_model
from distillation.models.info import ModelInfo
from distillation.models.names import ModelError, base_name
from distillation.models.state_dicts import clean_names, find_state
from distillation.models.tensor_checks import check_tensors
from distillation.models.weight_files import read_content

ALLOWED = "allowed: a file of weights, or a folder with config.json and weights"
ALLOWED_FOLDER = "allowed: a folder with config.json and model.safetensors, or a file of weights"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The weights in a file, and what it says of the model they belong to."""

    name: str
    """Path, or name with `hf-hub:` or `local-dir:`, as the user gave it."""
    state: dict[str, Tensor]
    """Finite tensors by name, without the wrappers' prefixes; floating point is float32."""
    info: ModelInfo
    remarks: tuple[str, ...]
    """Sentences for the log: what was chosen, left out or renamed."""


def read_checkpoint(name: str, *, key: str) -> Checkpoint:
    """Read the weights that a user names.

    Args:
        name: path of a file of any ending, path of a folder with `config.json` and weights,
            `local-dir:FOLDER`, or `hf-hub:USER/NAME`, with `@REVISION` if wanted.
        key: the parameter it was given as, such as `teacher_checkpoint`.

    Raises:
        ModelError: there is no such file, it does not fit its checksum, or it holds no weights of
            one model that can be used.
    """
    try:
        return _read(name, key=key)
    except ModelError as error:
        # Names in a file may hold anything.
        raise ModelError(printable(str(error))) from error.__cause__


def _read(name: str, *, key: str) -> Checkpoint:
    got = f"{key}: got {name!r}"
    weights, config = _locate(name, key=key)
    content = read_content(weights, got=got)
    check_weights(content.metadata, content.value, path=weights, got=got)
    state, chosen = find_state(content.value, got=got)
    state, cleaned = clean_names(state, got=got)
    info = ModelInfo.from_metadata(content.metadata)
    if isinstance(content.value, Mapping):
        info = _complete(info, _info_of_training(content.value))
    if config is not None:
        info = _complete(info, _read_config(config, got=got))
    return Checkpoint(
        name=name,
        state=check_tensors(state, got=got),
        info=info,
        remarks=tuple(printable(f"{name}: {remark}") for remark in (*chosen, *cleaned)),
    )


def _locate(name: str, *, key: str) -> tuple[Path, Path | None]:
    """Return the paths of the weights and, where there is one, of their `config.json`."""
    got = f"{key}: got {name!r}"
    source, _, rest = name.partition(":")
    source = source.lower().replace("_", "-")
    if source == "hf-hub":
        config, weights = fetch_model(rest, name=name, key=key)
        return weights, config
    if source in ("http", "https"):
        raise ModelError(f"{got}, which is an address; {ALLOWED}: fetch it first")
    path = Path(rest if source == "local-dir" else name).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise ModelError(f"{got}, which cannot be opened ({error.strerror}); {ALLOWED}") from error
    if is_folder:
        return _locate_in_folder(path, got=got)
    if source == "local-dir":
        raise ModelError(f"{got}, which is no folder; {ALLOWED_FOLDER}")
    if not exists:
        raise ModelError(f"{got}: no such file; {ALLOWED}, or hf-hub:USER/NAME")
    if not path.is_file():
        raise ModelError(f"{got}, which is no regular file; {ALLOWED}")
    beside = path.with_name("config.json")
    belongs = path.name in _PREFERRED_FILES and beside.is_file()
    return path, beside if belongs else None


def _locate_in_folder(folder: Path, *, got: str) -> tuple[Path, Path]:
    """Return weights and `config.json` of a folder, in timm's order of preference."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise ModelError(f"{got}, which cannot be listed ({error.strerror})") from error
    config = folder / "config.json"
    if config not in files:
        inside = [path.name for path in files if path.name.endswith(_EXT_PRIORITY)][-3:]
        hint = f", such as {' or '.join(inside)} in it" if inside else ""
        raise ModelError(f"{got}, which is a folder without config.json; {ALLOWED_FOLDER}{hint}")
    for preferred in _PREFERRED_FILES:
        if folder / preferred in files:
            return folder / preferred, config
    for ending in _EXT_PRIORITY:
        found = [path for path in files if path.name.endswith(ending)]
        if len(found) > 1:
            raise ModelError(
                f"{got}, which is a folder with several files of weights "
                f"({', '.join(path.name for path in found[:4])}); allowed: the path of one"
            )
        if found:
            return found[0], config
    raise ModelError(f"{got}, which is a folder without a file of weights; {ALLOWED_FOLDER}")


def _read_config(path: Path, *, got: str) -> ModelInfo:
    form = "allowed: what timm's save_for_hf writes, with the key architecture"
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no mapping")
        info = ModelInfo.from_config(config)
    except (OSError, ValueError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ModelError(f"{got}, whose config.json cannot be used ({reason}); {form}") from error
    name = info.architecture
    if name is None or not timm.is_model(base_name(name)):
        raise ModelError(f"{got}, whose config.json names no model of timm's ({name}); {form}")
    return info


def _info_of_training(content: Mapping[Any, Any]) -> ModelInfo:
    """Return what timm's train.py keeps of its command line; nothing for other files."""
    args, architecture = content.get("args"), content.get("arch")
    if not isinstance(args, argparse.Namespace) or not isinstance(architecture, str):
        return ModelInfo()
    options = vars(args)
    name = options.get("model")
    if not isinstance(name, str) or name.partition(".")[0] != architecture:
        name = architecture
    if not timm.is_model(name):
        return ModelInfo()
    size = options.get("img_size")
    if size is None and isinstance(options.get("input_size"), (list, tuple)):
        size = options["input_size"][-1]
    return ModelInfo(
        architecture=name,
        image_size=size if isinstance(size, int) else None,
        mean=_three_numbers(options.get("mean")),
        std=_three_numbers(options.get("std")),
    )


def _three_numbers(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, (list, tuple)) or len(value) not in (1, 3):
        return None
    if not all(isinstance(number, (int, float)) for number in value):
        return None
    return tuple(float(number) for number in (value if len(value) == 3 else value * 3))


def _complete(info: ModelInfo, other: ModelInfo) -> ModelInfo:
    """Return `info` with what it does not say taken from `other`."""
    missing = {k: getattr(other, k) for k, v in dataclasses.asdict(info).items() if v is None}
    return dataclasses.replace(info, **missing)
