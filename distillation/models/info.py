"""What a file of weights says of its model besides the tensors.

Weights alone make no model: the stem's stride, the size and normalisation of the input and the
order of the classes belong to them. The project's own files say all of it in their metadata, a
folder in the manner of Hugging Face in its `config.json`; other files say some of it or nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any
from unicodedata import normalize

from distillation.base.json_text import parse_json

METADATA_KEY = "distillation"
"""The one entry of a safetensors file's metadata: safetensors writes several in an order that
changes from process to process, and the same weights should be the same file."""

_OF_TIMM = {
    *(
        "default_cfg",
        "device",
        "dtype",
        "exportable",
        "feature_cfg",
        "feature_cls",
        "features_only",
    ),
    *("model_cfg", "no_jit", "out_indices", "pruned", "scriptable", "variant"),
}
"""Arguments of `timm.create_model` and what it calls that are none of a model's."""
OWN_STRIDE = "own"
"""The stem's stride is the architecture's own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What is known of the model that weights belong to; None where nothing is."""

    architecture: str | None = None
    """timm name, with the tag of the published weights where it was given."""
    stem_stride: int | str | None = None
    """Stride that was given to the first convolution, or `OWN_STRIDE`."""
    image_size: int | None = None
    """Height and width in pixels of the images it was trained on."""
    mean: tuple[float, ...] | None = None
    """Of the input's channels, for pixels from 0 to 1."""
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    """In the order of the classifier's outputs."""
    model_args: Mapping[str, Any] | None = None
    """What timm's `create_model` needs beside the architecture to build it."""

    def to_values(self) -> dict[str, Any]:
        """Return what is known, as JSON gives it back."""
        known = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        return json.loads(json.dumps(known))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None) -> ModelInfo:
        """Read the metadata of this project's files; those of another kind say nothing.

        Files of former versions say the architecture and the class names alone.
        """
        try:
            values = parse_json((metadata or {})[METADATA_KEY])
            return cls._from_values(values)
        except (KeyError, ValueError, TypeError):
            return cls()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelInfo:
        """Read the `config.json` of a folder that timm's `save_for_hf` wrote, or the Hub's.

        Raises:
            ValueError: it does not have the form of one.
        """
        inner = config.get("pretrained_cfg", config)
        if not isinstance(inner, Mapping):
            raise ValueError("pretrained_cfg is no mapping")
        size = inner.get("input_size")
        names = config.get("label_names", inner.get("label_names"))
        given = config.get("model_args") or {}
        if not isinstance(given, Mapping):
            raise ValueError("model_args is no mapping")
        arguments = dict(given)
        # Only this project writes the key; timm refuses to build a model with it.
        stride = arguments.pop("stem_stride", None)
        architecture, tag = config.get("architecture"), inner.get("tag")
        try:
            return cls._from_values(
                {
                    "architecture": f"{architecture}.{tag}"
                    if tag and architecture
                    else architecture,
                    "stem_stride": stride,
                    "image_size": size[-1] if size else None,
                    "mean": inner.get("mean"),
                    "std": inner.get("std"),
                    "class_names": list(names) if isinstance(names, (list, tuple)) else None,
                    "model_args": _without_sizes(arguments) or None,
                }
            )
        except (TypeError, KeyError, IndexError) as error:
            raise ValueError(f"an entry has the wrong form ({error})") from error

    @classmethod
    def _from_values(cls, values: Mapping[str, Any]) -> ModelInfo:
        fields = {field.name for field in dataclasses.fields(cls)}
        known = {k: v for k, v in values.items() if k in fields and v is not None}
        architecture = known.get("architecture", "")
        if not isinstance(architecture, str) or not architecture.isprintable():
            raise ValueError("architecture is no name")
        arguments = known.get("model_args", {})
        if not isinstance(arguments, Mapping) or not all(map(_is_of_a_model, arguments)):
            raise ValueError("model_args holds other things than arguments of a model")
        for key in ("mean", "std"):
            if key in known:
                known[key] = tuple(float(value) for value in known[key])
        if "class_names" in known:
            known["class_names"] = tuple(
                normalize("NFC", str(name)) for name in known["class_names"]
            )
        return cls(**known)


def _is_of_a_model(name: Any) -> bool:
    """Tell a model's own arguments from those that say where timm finds weights and settings."""
    return (
        isinstance(name, str)
        and name.isidentifier()
        and not name.startswith(("pretrained", "checkpoint", "cache", "hf_"))
        and name not in _OF_TIMM
    )


def _without_sizes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what follows from the data set: the size of its images, and its classes."""
    return {k: v for k, v in arguments.items() if k not in ("num_classes", "img_size")}
