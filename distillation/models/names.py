"""Names of models, checked before any work: timm's, and folders or Hub repositories of weights.

A name is a timm name, with or without the tag of published weights (`resnet18.a1_in1k`),
`local-dir:FOLDER` or `hf-hub:USER/NAME`, both as timm's `create_model` takes them.
"""

from __future__ import annotations

import difflib

import timm
from timm.models import parse_model_name, split_model_name_tag

from distillation.base.errors import DistillationError


class ModelError(DistillationError):
    """A model's name or weights cannot be used; the message says what is allowed."""


def base_name(timm_name: str) -> str:
    """Return a timm name without the tag of published weights."""
    return split_model_name_tag(timm_name)[0]


def has_source(name: str, *, key: str = "model") -> bool:
    """Return whether a name is that of a folder or a Hub repository, and not of timm's.

    Raises:
        ModelError: it looks like one, but has no `local-dir:` or `hf-hub:` before it.
    """
    try:
        return parse_model_name(name)[0] is not None
    except ValueError as error:
        raise ModelError(
            f"{key}: got {name!r}; allowed: a timm name, or hf-hub:USER/NAME for a repository of "
            "the Hugging Face Hub, or local-dir:FOLDER for a folder with config.json"
        ) from error


def names_weights(name: str, *, key: str = "model") -> bool:
    """Return whether a name stands for certain weights, and not for an architecture alone."""
    return has_source(name, key=key) or bool(split_model_name_tag(name)[1])


def check_model_name(name: str, *, key: str = "model") -> None:
    """Raise `ModelError` with the nearest names if timm has no model of this name.

    Args:
        name: a timm model name, without a tag of pretrained weights or with one.
        key: the parameter it was given as, for the message.
    """
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
