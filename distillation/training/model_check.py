"""Try teacher and student before anything is prepared or trained."""

from __future__ import annotations

import logging

from distillation.base.params import Params
from distillation.base.workspace import TEACHER
from distillation.models.probing import probe
from distillation.training.setup import STUDENT, DataShape, start_model

logger = logging.getLogger(__name__)


def check_models(params: Params, shape: DataShape) -> None:
    """Create both models with their weights and run each once at the real size.

    Args:
        params: which models, with which weights.
        shape: size and classes of the images.

    Raises:
        ModelError: one of them cannot be used.
    """
    for role in (STUDENT, TEACHER):
        model = start_model(role, params, shape, seed=0)
        probe(model, shape.image_size, key=role)
