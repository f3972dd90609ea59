"""`python -m distillation sweep`: variants of the pipeline on a Ray cluster, one task for each.

Only `main` is for others, and nothing else in the project knows Ray. A variant is an experiment of
DVC, named after its parameters, that a node runs in a clone of its own and pushes.
"""

from __future__ import annotations

from distillation.cluster.command import main

__all__ = ["main"]
