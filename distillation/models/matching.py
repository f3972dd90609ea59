"""Hold what a checkpoint says of its model against what the parameters ask for.

What a file says is followed; where the parameters say something else, that is an error which names
both. What nobody says is assumed, and the log says so.
"""

from __future__ import annotations

import dataclasses

from timm.models import split_model_name_tag

from distillation.models.info import OWN_STRIDE, ModelInfo
from distillation.models.names import ModelError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What parameters and data ask of a model."""

    key: str
    """`teacher` or `student`: the model's parameters begin with it."""
    architecture: str
    """timm name."""
    stem_stride: int | None
    """None: what the checkpoint says, else the architecture's own."""
    image_size: int
    class_names: tuple[str, ...] | None
    """In the order of the data set's labels; None where only their number is known."""
    will_train: bool
    """Whether training is ahead, so that it may be another size of images, or a new head."""


def check_match(info: ModelInfo, wanted: Wanted, *, name: str, own_stride: int | None) -> list[str]:
    """Compare what a checkpoint says of architecture, stem and image size with what is wanted.

    Args:
        info: what the checkpoint says.
        wanted: what the parameters say.
        name: the checkpoint's, for messages.
        own_stride: stride of the architecture's own stem, where it has one.

    Returns:
        Sentences for the log: what is followed, and what is assumed.

    Raises:
        ModelError: they differ.
    """
    where = f"{wanted.key}_checkpoint {name}"
    _check_architecture(info, wanted, where)
    remarks = _check_stem_stride(info, wanted, where, own_stride)
    remarks += _check_image_size(info, wanted, where)
    stride = wanted.stem_stride or "the architecture's own"
    assumed = {
        f"a stem stride of {stride}": info.stem_stride,
        f"images of {wanted.image_size} pixels": info.image_size,
        f"timm's normalisation for {wanted.architecture}": info.mean,
        "the data set's classes in their order, as strings": info.class_names,
    }
    unsaid = [text for text, value in assumed.items() if value is None]
    if unsaid and not wanted.will_train:
        remarks.append(f"{where} does not say everything; assumed: {', '.join(unsaid)}")
    return remarks


def _check_architecture(info: ModelInfo, wanted: Wanted, where: str) -> None:
    if info.architecture is None:
        return
    said, asked = (split_model_name_tag(n)[0] for n in (info.architecture, wanted.architecture))
    if said != asked:
        raise ModelError(
            f"{where}: holds {said}, but {wanted.key} is {asked}; allowed: {wanted.key}={said}, "
            f"or a checkpoint of {asked}"
        )


def _check_stem_stride(
    info: ModelInfo, wanted: Wanted, where: str, own_stride: int | None
) -> list[str]:
    said, asked = info.stem_stride, wanted.stem_stride
    if said is None or (asked is None and said == OWN_STRIDE):
        return []
    if asked is None:
        return [f"{where}: its stem stride of {said} is followed"]
    if (own_stride if said == OWN_STRIDE else said) == asked:
        return []
    text = "the architecture's own" if said == OWN_STRIDE else said
    raise ModelError(
        f"{where}: was trained with a stem stride of {text}, but {wanted.key}_stem_stride is "
        f"{asked}; allowed: {wanted.key}_stem_stride={'null' if said == OWN_STRIDE else said}"
    )


def _check_image_size(info: ModelInfo, wanted: Wanted, where: str) -> list[str]:
    if info.image_size in (None, wanted.image_size):
        return []
    said = f"{where}: was trained on images of {info.image_size} pixels"
    if wanted.will_train:
        return [f"{said}, and goes on with {wanted.image_size}"]
    raise ModelError(
        f"{said}, but image_size is {wanted.image_size}; allowed: image_size={info.image_size}, "
        f"or {wanted.key}_epochs above 0, which trains it on"
    )
