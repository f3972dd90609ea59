"""The checksum in an ONNX file's own metadata: written with the file, compared before it runs.

It is the SHA-256 of the file with 64 zeros in the checksum's place. Neither onnx nor torch is
needed: in the file, an entry of metadata is its key and its value, each after a byte that says
which of the two it is and a byte with its length.
"""

from __future__ import annotations

import hashlib

from distillation.base.checksums import CHECKSUM_KEY, ChecksumError

PLACEHOLDER = "0" * 64
"""Stands in the entry's place while the checksum is computed."""

_KEY = CHECKSUM_KEY.encode()
_BEFORE_VALUE = bytes([0x0A, len(_KEY)]) + _KEY + bytes([0x12, len(PLACEHOLDER)])


def fill_in_checksum(content: bytes) -> bytes:
    """Return an ONNX file whose entry `sha256` holds `PLACEHOLDER` with the checksum there."""
    start, end = _find_value(content)
    assert content[start:end] == PLACEHOLDER.encode(), "the entry holds no placeholder"
    return content[:start] + _hash_without(content, start, end).encode() + content[end:]


def check_checksum(content: bytes) -> None:
    """Compare an ONNX file with the checksum in it.

    Raises:
        ChecksumError: it has none, or another.
    """
    start, end = _find_value(content)
    if content[start:end] != _hash_without(content, start, end).encode():
        raise ChecksumError("its content does not fit its checksum")


def _find_value(content: bytes) -> tuple[int, int]:
    """Return where the checksum begins and ends: metadata are the last of a file."""
    position = content.rfind(_BEFORE_VALUE)
    if position < 0:
        raise ChecksumError("its metadata have no checksum (sha256)")
    start = position + len(_BEFORE_VALUE)
    return start, start + len(PLACEHOLDER)


def _hash_without(content: bytes, start: int, end: int) -> str:
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(PLACEHOLDER.encode())
    digest.update(view[end:])
    return digest.hexdigest()
