"""`python -m distillation compare`: results of any number of runs beside each other.

Only `main` is for others. It imports neither torch nor DVC: what is compared are files that runs
have left behind, in folders or in git.
"""

from __future__ import annotations

from distillation.compare.command import main

__all__ = ["main"]
