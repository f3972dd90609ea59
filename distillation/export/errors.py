"""What can go wrong with an exported model."""

from __future__ import annotations

from distillation.base.errors import DistillationError
from distillation.base.limits import find_out_of_memory
from distillation.base.printable import printable

_LONGEST_REASON = 200


class ExportError(DistillationError):
    """A model cannot be exported, or an exported file cannot be used or trusted."""


class NoFileError(ExportError):
    """An ONNX file could not be made; in its place stands why."""


def refuse(what: str, error: Exception) -> ExportError:
    """Return what happened to a model in one sentence; the libraries' errors have no class of one.

    Raises:
        Exception: what the machine had to say, where memory or the disk ended it.
    """
    innermost: BaseException = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    memory = find_out_of_memory(error)
    if memory is not None or isinstance(innermost, OSError):
        raise memory or innermost
    lines = [line.strip() for line in str(innermost).splitlines() if line.strip()]
    reason = printable(lines[0] if lines else type(innermost).__name__)
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[:_LONGEST_REASON]}…"
    return ExportError(f"{what}: {reason}")
