"""Try teacher and student before anything is prepared or trained."""

from __future__ import annotations

import logging

from distillation.base.params import Params
from distillation.base.workspace import TEACHER
from distillation.models.probing import check_training
from distillation.training.setup import STUDENT, DataShape, start_model

logger = logging.getLogger(__name__)


def check_models(params: Params, shape: DataShape) -> None:
    """Create both models with their weights and run each once at the real size, as it will be.

    Args:
        params: which models, with which weights.
        shape: size and classes of the images.

    Raises:
        ModelError: one of them cannot be used.
    """
    for role in (STUDENT, TEACHER):
        model = start_model(role, params, shape, seed=0)
        key = "batch_size" if role == STUDENT else "teacher_batch_size"
        if role == STUDENT or params.teacher_epochs > 0:
            batch_size = min(getattr(params, key), 2)
            check_training(model, shape.image_size, batch_size=batch_size, key=key)
