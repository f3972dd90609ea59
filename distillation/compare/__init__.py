"""`python -m distillation compare`: results of any number of runs beside each other.

Only `main` is for others. What is compared are files that runs have left behind, in folders or in
git: no torch, and DVC only where a revision is asked for.
"""

from __future__ import annotations

from distillation.compare.command import main

__all__ = ["main"]
