"""The last features of a timm model: a map where the architecture has one.

timm's `forward_features` returns maps in channels first or last, sequences of tokens with or
without class tokens, or several tensors of several scales. Methods that compare features get one
of three things made of it: a map, pooled features, or nothing. What it is depends on the
architecture and the image size alone, never on the values.

Shapes: B batch, N tokens, C channels and h, w size of the map.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

MAP, POOLED = "map", "pooled"

Shape = tuple[int, ...]
"""Of one image's features: (C, h, w) of a map, (C,) of pooled features, () where a model has only
logits."""


def last_features(raw: Any, net: nn.Module) -> Tensor | None:
    """Return a map (B, C, h, w), pooled features (B, C), or None.

    Tokens that fill a square make a map, row by row, without the class tokens. Other tokens have
    no known place, and their mean is what is left of them: of all but the class tokens, or of the
    class tokens where a model returns no others. Several tensors are no features, since which of
    their scales is meant cannot be known.

    Args:
        raw: what `forward_features` of `net` returned.
        net: the timm model.
    """
    if not isinstance(raw, Tensor):
        return None
    if raw.ndim == 4:
        is_nhwc = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
        return raw.permute(0, 3, 1, 2) if is_nhwc else raw
    if raw.ndim == 3:
        tokens = raw[:, num_prefix_tokens(net) :]
        if tokens.shape[1] == 0:
            return raw.mean(dim=1)
        side = round(tokens.shape[1] ** 0.5)
        if side * side != tokens.shape[1]:
            return tokens.mean(dim=1)
        return tokens.transpose(1, 2).unflatten(2, (side, side))
    return raw if raw.ndim == 2 else None


def num_prefix_tokens(net: nn.Module) -> int:
    """Return how many class and register tokens stand before those of the image.

    Some of timm's models do not say it; their class tokens are parameters (1, tokens, C).
    """
    declared = getattr(net, "num_prefix_tokens", None)
    if declared is not None:
        return int(declared)
    parameters = net.named_parameters(recurse=False)
    tokens = [p for name, p in parameters if name.startswith("cls_token") and p.ndim == 3]
    return tokens[-1].shape[1] if tokens else 0


def has_features(shape: Shape, kind: str) -> bool:
    """Return whether features of a shape serve where `MAP` or `POOLED` ones are needed."""
    return len(shape) == 3 or (len(shape) == 1 and kind == POOLED)


def describe_features(shape: Shape) -> str:
    """Return what a model has, for a message."""
    if not shape:
        return "only logits"
    if len(shape) == 1:
        return "no map of features, only their mean"
    return f"a {shape[1]} × {shape[2]} map of features"
