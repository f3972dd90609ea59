"""The first convolutions of a timm model and their stride.

A smaller stride keeps small images from shrinking to a single pixel. The convolutions that take
the image itself are found by running the model, not by name: there may be several side by side
(RepVGG, MobileOne, FastViT), whose outputs are added and must keep one size. Whether the rest of
the model goes along is found by running it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillation.base.limits import is_out_of_memory
from distillation.models.features import Shape, last_features
from distillation.models.names import ModelError


def set_stem_stride(
    net: nn.Module, name: str, stride: int, *, image_size: int, key: str = "stem_stride"
) -> None:
    """Give a timm model's first convolutions another stride, in place.

    Args:
        net: the timm model.
        name: its name, for messages.
        stride: down and right alike.
        image_size: H = W in pixels of the images it will see.
        key: the parameter the stride was given as, for messages.

    Raises:
        ModelError: no convolution takes the image, it is a patch embedding, the model works with
            its own stride only, or the stride makes no difference to its feature map. A stride
            above 1 that the model has already is no error.
    """
    start = f"{key}: got {stride}, but {name}"
    stems, before = _find_stems(net, image_size)
    if not stems:
        raise ModelError(f"{start} rearranges the image before its first convolution; {_OWN}")
    if not any(max(stem.kernel_size) > max(stem.stride) for stem in stems):
        # In a patch embedding the stride is the patch: changing it changes the architecture.
        raise ModelError(f"{start} has no overlapping first convolution; {_OWN}")
    own = [stem.stride for stem in stems]
    if all(value == (stride, stride) for value in own):
        if stride == 1:  # asked for a larger map, which would not come
            raise ModelError(f"{start} has a first convolution of stride 1 already; {_OWN}")
        return
    new = [(stride, stride)] * len(stems)
    _set_strides(stems, new)
    after = _run(net, image_size)
    if after is None and before is None:
        return  # nor does it run with its own stride: it is the image size that is wrong
    reason = ""
    if after is None:
        reason = "is built for the map that its own stem makes, and cannot be run with another"
    elif after == before and after[1:] not in {(), (1, 1)}:
        # The least size a map can have may be larger than one pixel: a larger image decides.
        size = max(2 * image_size, _LARGE)
        larger_after = _run(net, size)
        _set_strides(stems, own)
        if _run(net, size) == larger_after:
            reason = "has a feature map of the same size whatever the stride"
    _set_strides(stems, own if reason else new)
    if reason:
        raise ModelError(f"{start} {reason}; {_OWN}")


_OWN = "allowed for it: null"
_LARGE = 256  # pixels, of an image that no architecture shrinks to its least map


def _set_strides(stems: list[nn.Conv2d], strides: Sequence[tuple[int, ...]]) -> None:
    for stem, stride in zip(stems, strides, strict=True):
        stem.stride = stride


def own_stem_stride(net: nn.Module, image_size: int) -> int | None:
    """Return the stride of the convolutions that take the image; None where none overlaps."""
    stems, _ = _find_stems(net, image_size)
    strides = {stem.stride[0] for stem in stems if max(stem.kernel_size) > max(stem.stride)}
    return min(strides) if strides else None


def _find_stems(net: nn.Module, image_size: int) -> tuple[list[nn.Conv2d], Shape | None]:
    """Return the convolutions that take the whole image, and what `_run` returns."""
    stems: list[nn.Conv2d] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        shape = tuple(inputs[0].shape[1:])
        if shape == (3, image_size, image_size) and module not in stems:
            stems.append(module)  # type: ignore[arg-type]

    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_pre_hook(note) for module in convolutions]
    try:
        return stems, _run(net, image_size)
    finally:
        for hook in hooks:
            hook.remove()


def _run(net: Any, image_size: int) -> Shape | None:
    """Return the shape of an image's last features, or None if the model cannot be run."""
    was_training = net.training
    device = next(net.parameters()).device
    net.eval()
    try:
        with torch.no_grad():
            raw = net.forward_features(torch.zeros(1, 3, image_size, image_size, device=device))
            net.forward_head(raw)
        features: Tensor | None = last_features(raw, net)
        return () if features is None else tuple(features.shape[1:])
    # Each architecture has its own errors; that of a wrong size is reported by `probe`.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return None
    finally:
        net.train(was_training)
