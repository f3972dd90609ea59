"""Check models, weights and the data set's folders, before images are read or models trained.

What it writes is always the same. DVC runs the stage when a parameter it reads changes, and what
depends on it stays as it is: a new student does not make the images be prepared again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from distillation.base.files import write_text
from distillation.base.methods import check_method
from distillation.base.params import ParamError, Params
from distillation.base.workspace import Workspace
from distillation.sources.prepare import list_source
from distillation.training.model_check import ModelFeatures, check_models, check_places
from distillation.training.optimizer import check_optimizer
from stages.entry import run_stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What is known of the images before any is read."""

    class_names: tuple[str, ...]
    image_size: int


def main(
    params: Params,
    workspace: Workspace,
    *,
    look: Callable[[Shape, ModelFeatures], None] | None = None,
) -> list[Path]:
    """Write `data/checked.txt`.

    Args:
        params: the parameters.
        workspace: where to read and write.
        look: called with what is known of the images, and with both models' features.
    """
    for method in params.methods:  # each gets a stage: a wrong name is refused before it runs
        check_method(method)
    if params.epochs in params.control_epochs:
        raise ParamError(
            f"control_epochs: got {params.epochs}, which is epochs; must name other lengths: the "
            "control is trained for that one anyway"
        )
    for role in ("teacher_", ""):
        key = f"{role}optimizer"
        check_optimizer(
            getattr(params, key),
            getattr(params, f"{key}_options") or {},
            key=key,
            has_decay=getattr(params, f"{role}weight_decay") is not None,
        )
    check_places(params, workspace)
    listing = list_source(params, raw_directory=workspace.raw)
    shape = Shape(class_names=listing.class_names, image_size=params.image_size)
    features = check_models(params, shape)
    if look is not None:
        look(shape, features)
    write_text(
        workspace.checked, "The models, their weights and the data set's folders are usable.\n"
    )
    return [workspace.checked]


if __name__ == "__main__":
    run_stage(main)
