"""The checksum of a file of weights that this project wrote: of its tensors and of what it says.

It stands in the one entry of the file's metadata, beside what `ModelInfo` says. Files from
elsewhere have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillation.base.checksums import CHECKSUM_KEY, hash_json
from distillation.base.json_text import parse_json
from distillation.models.info import METADATA_KEY, ModelInfo
from distillation.models.names import ModelError
from distillation.models.weight_files import describe_repair_of_weights


def make_metadata(info: ModelInfo, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the metadata of a safetensors file with these tensors, the checksum among it."""
    values = info.to_values()
    sealed = {**values, CHECKSUM_KEY: _hash_weights(tensors, values)}
    return {METADATA_KEY: json.dumps(sealed, ensure_ascii=False)}


def check_weights(metadata: Mapping[str, str], content: Any, *, path: Path, got: str) -> None:
    """Compare a file of weights with its checksum, where it has one.

    Args:
        metadata: the file's.
        content: its tensors by name.
        path: the file.
        got: begins the message.

    Raises:
        ModelError: the file is damaged.
    """
    own = metadata.get(METADATA_KEY)
    if own is None:
        # A damaged name of the entry must not make the file one from elsewhere.
        is_damaged = any(f'"{CHECKSUM_KEY}": "' in text for text in metadata.values())
    else:
        is_damaged = not _fits(own, content)
    if is_damaged:
        raise ModelError(
            f"{got}, which is damaged: it does not fit its checksum; "
            f"{describe_repair_of_weights(path)}"
        )


def _fits(text: str, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether tensors fit an entry of metadata; former versions' have no checksum."""
    try:
        values = parse_json(text)
        expected = values.pop(CHECKSUM_KEY, None)
        return expected is None or expected == _hash_weights(tensors, values)
    except (ValueError, AttributeError, TypeError):
        return False


def _hash_weights(tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> str:
    """Return the SHA-256 of names, shapes, types and values, and of what is said beside them."""
    digest = hashlib.sha256(hash_json(described).encode())
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, list(values.shape), str(values.dtype)]).encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
