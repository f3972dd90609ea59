"""Try teacher and student before anything is prepared or trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distillation.base.params import ParamError, Params, named_paths
from distillation.base.workspace import TEACHER, Workspace
from distillation.models.features import Shape
from distillation.models.probing import check_training
from distillation.training.setup import STUDENT, DataShape, start_model


def check_places(params: Params, workspace: Workspace) -> None:
    """Check that no weights or images are given where a stage writes: DVC removes them before.

    Raises:
        ParamError: some are; the message has the way out.
    """
    data = workspace.prepared.parent
    outputs = [data / name for name in ("predictions", "prepared", "targets")]
    outputs += [workspace.root / name for name in ("metrics", "models", "report")]
    for key, (_, named) in named_paths(params).items():
        path = Path(named).expanduser().resolve()
        for output in outputs:
            inside = path.is_relative_to(output.resolve())
            if inside or (key == "dataset" and output.resolve().is_relative_to(path)):
                what = "in which" if inside else f"which holds {output}, in which"
                raise ParamError(
                    f"{key}: got {named}, {what} stages of the pipeline write, and remove what is "
                    f"there; allowed: a place outside, such as {data / 'raw'}"
                )


ModelFeatures = Mapping[str, tuple[str, Shape]]
"""Name and shape of one image's features, by `teacher` and `student`."""


def check_models(params: Params, shape: DataShape) -> ModelFeatures:
    """Create both models with their weights and run each once at the real size, as it will be.

    Args:
        params: which models, with which weights.
        shape: size and classes of the images.

    Raises:
        ModelError: one of them cannot be used.
    """
    features = {}
    for role in (STUDENT, TEACHER):
        model = start_model(role, params, shape, seed=0)
        key = "batch_size" if role == STUDENT else "teacher_batch_size"
        if role == STUDENT or params.teacher_epochs > 0:
            batch_size = min(getattr(params, key), 2)
            check_training(model, shape.image_size, batch_size=batch_size, key=key)
        features[role] = model.name, model.feature_shape(shape.image_size)
    return features
