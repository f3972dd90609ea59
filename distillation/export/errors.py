"""What can go wrong with an exported model."""

from __future__ import annotations

from distillation.base.errors import DistillationError


class ExportError(DistillationError):
    """A model cannot be exported, or an exported file cannot be used or trusted."""
