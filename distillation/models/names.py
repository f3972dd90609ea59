"""Names of models, checked before any work: timm's, and folders or Hub repositories of weights.

A name is a timm name, with or without the tag of published weights (`resnet18.a1_in1k`),
`local-dir:FOLDER` or `hf-hub:USER/NAME`, both as timm's `create_model` takes them.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any

import timm
from timm.models import load_model_config_from_hf, parse_model_name, split_model_name_tag

from distillation.base.errors import DistillationError
from distillation.models.info import ModelInfo

CONFIG_FILE = "config.json"


class ModelError(DistillationError):
    """A model's name or weights cannot be used; the message says what is allowed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a name stands for."""

    timm_name: str
    """The name in timm, with the tag where one was given."""
    info: ModelInfo = dataclasses.field(default_factory=ModelInfo)
    """What the `config.json` of a folder or Hub repository says; of a timm name, nothing."""

    @property
    def base_name(self) -> str:
        """Return the timm name without a tag."""
        return split_model_name_tag(self.timm_name)[0]


def names_weights(name: str) -> bool:
    """Return whether a name stands for certain weights, and not for an architecture alone."""
    source, model_id = _parse(name, "model")
    return source is not None or bool(split_model_name_tag(model_id)[1])


def has_source(name: str) -> bool:
    """Return whether a name is that of a folder or a Hub repository."""
    return _parse(name, "model")[0] is not None


def check_model_name(name: str, *, key: str = "model") -> None:
    """Raise `ModelError` if a name is none; what a Hub repository holds is not looked at.

    Args:
        name: a model's name.
        key: the parameter it was given as, for the message.
    """
    if _parse(name, key)[0] != "hf-hub":
        find_architecture(name, key=key)


def find_architecture(name: str, *, key: str = "model") -> Architecture:
    """Find what a name stands for; reads the `config.json` of a folder or a Hub repository.

    Raises:
        ModelError: there is no such model; the message has the nearest names.
    """
    source, model_id = _parse(name, key)
    if source is None:
        _check_timm_name(model_id, key)
        return Architecture(timm_name=model_id)
    try:
        config = _read_config(source, model_id, key)
        info = ModelInfo.from_config(config)
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(
            f"{key}: got {name!r}, whose {CONFIG_FILE} cannot be used ({error}); allowed: one as "
            "timm's save_for_hf writes it"
        ) from error
    if info.architecture is None:
        raise ModelError(
            f"{key}: got {name!r}, whose {CONFIG_FILE} names no architecture; allowed: one as "
            "timm's save_for_hf writes it"
        )
    base_name = split_model_name_tag(info.architecture)[0]
    _check_timm_name(base_name, f"{key} ({name})")
    return Architecture(timm_name=base_name, info=info)


def _parse(name: str, key: str) -> tuple[str | None, str]:
    try:
        return parse_model_name(name)
    except ValueError as error:
        raise ModelError(
            f"{key}: got {name!r}; allowed: a timm name, or hf-hub:USER/NAME for a repository of "
            "the Hugging Face Hub, or local-dir:FOLDER for a folder with config.json"
        ) from error


def _check_timm_name(name: str, key: str) -> None:
    if timm.is_model(name):
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:
            raise ModelError(
                f"{key}: got {name!r}; allowed: a timm model with one of its own tags ({error})"
            ) from error
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them"
    raise ModelError(f"{key}: got {name!r}; allowed: the name of a timm model; {hint}")


def _read_config(source: str, model_id: str, key: str) -> dict[str, Any]:
    """Read a `config.json`; raises ValueError where it is none."""
    if source == "hf-hub":
        try:
            cfg, architecture, arguments = load_model_config_from_hf(model_id)
        # The Hub's client has many errors; whatever went wrong, the answer is the same.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"{key}: hf-hub:{model_id} cannot be had ({type(error).__name__}: {reason}); "
                f"allowed: a repository that can be reached, or a local file as {key}_checkpoint"
            ) from error
        return {"architecture": architecture, "pretrained_cfg": cfg, "model_args": arguments}
    path = Path(model_id).expanduser() / CONFIG_FILE
    if not path.is_file():
        raise ModelError(
            f"{key}: got 'local-dir:{model_id}', but there is no file {path}; allowed: a folder "
            "with config.json and model.safetensors, as timm's save_for_hf writes it"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(config, dict):
        raise ValueError("it is no mapping")
    return config
