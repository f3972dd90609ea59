"""The base of every error that a user can put right."""

from __future__ import annotations


class DistillationError(ValueError):
    """The message names the key or file, what was given, and what is allowed.

    Programs show it as one line; anything else that is raised is a bug and keeps its traceback.
    """
