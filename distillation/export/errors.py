"""What can go wrong with an exported model."""

from __future__ import annotations

from distillation.base.errors import DistillationError
from distillation.base.limits import is_out_of_memory
from distillation.base.printable import printable

_LONGEST_REASON = 200


class ExportError(DistillationError):
    """A model cannot be exported, or an exported file cannot be used or trusted."""


def refuse(what: str, error: Exception) -> ExportError:
    """Return what happened to a model in one sentence; the libraries' errors have no class of one.

    Raises:
        Exception: the error itself, where memory or the disk ended it and not the model.
    """
    innermost: BaseException = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    if isinstance(innermost, OSError) or is_out_of_memory(error) or is_out_of_memory(innermost):
        raise error
    lines = [line.strip() for line in str(innermost).splitlines() if line.strip()]
    reason = printable(lines[0] if lines else type(innermost).__name__)
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[:_LONGEST_REASON]}…"
    return ExportError(f"{what}: {reason}")
