"""Check timm model names before any work, with the nearest names for a typing mistake."""

from __future__ import annotations

import difflib

import timm

from distillation.base.errors import DistillationError


class ModelError(DistillationError):
    """A model's name or weights cannot be used; the message says what is allowed."""


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
