"""timm models as classifiers of uint8 images.

A `Classifier` wraps a timm model with that model's own input normalisation, so teacher and
student can be given the very same pixels. Weights are saved as plain timm state dicts in
safetensors files, without the wrapper, and without any training state.

Shapes: B batch, K classes, H = W image size, C channels and h, w size of the last feature map.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from distillation.models.info import ModelInfo
from distillation.models.names import ModelError


class Outputs(NamedTuple):
    """What a model says of a batch."""

    logits: Tensor
    """(B, K)"""
    features: Tensor
    """(B, C, h, w): the output of timm's `forward_features`."""


class Classifier(nn.Module):
    """A timm model together with its own normalisation of the input."""

    mean: Tensor
    std: Tensor
    _scale: Tensor
    _offset: Tensor

    def __init__(
        self, net: nn.Module, *, name: str, num_classes: int, info: ModelInfo | None = None
    ) -> None:
        """Wrap a timm model.

        Args:
            net: the model.
            name: its timm name.
            num_classes: K.
            info: what belongs to its weights; the normalisation is taken from there, or from the
                model's own configuration.
        """
        super().__init__()
        self.net = net
        self.name = name
        self.num_classes = num_classes
        self.info = info or ModelInfo(architecture=name)
        config: dict[str, Any] = net.pretrained_cfg  # type: ignore[assignment]
        for key in ("mean", "std"):
            values = getattr(self.info, key) or config[key]
            value = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(key, value, persistent=False)
        self.register_buffer("_scale", 1.0 / (255.0 * self.std), persistent=False)
        self.register_buffer("_offset", -self.mean / self.std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, 3, H, W) uint8."""
        return self.net(self._normalize(images))

    def outputs(self, images: Tensor) -> Outputs:
        """Return logits and the last feature map of images (B, 3, H, W) uint8, in one pass."""
        net: Any = self.net
        raw = net.forward_features(self._normalize(images))
        return Outputs(logits=net.forward_head(raw), features=_as_map(raw, net))

    def feature_shape(self, image_size: int) -> tuple[int, int, int]:
        """Return (C, h, w) of the last feature map, by running one black image of H = W pixels."""
        was_training = self.training
        self.eval()
        image = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
        try:
            with torch.inference_mode():
                features = self.outputs(image.to(self.mean.device)).features
        finally:
            self.train(was_training)
        channels, height, width = features.shape[1:]
        return channels, height, width

    def _normalize(self, images: Tensor) -> Tensor:
        # (images / 255 - mean) / std in one pass over memory.
        return torch.addcmul(self._offset, images.float(), self._scale)


def freeze(model: Classifier) -> Classifier:
    """Put a model in `eval()` and take gradients from every parameter; returns it."""
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def save_weights(model: Classifier, path: Path, *, class_names: tuple[str, ...]) -> None:
    """Write a model's weights to a safetensors file, whole or not at all.

    The file's metadata say what `ModelInfo` holds, the classes in the order of the head's rows.
    """
    tensors = {key: value.detach().contiguous() for key, value in model.net.state_dict().items()}
    info = dataclasses.replace(model.info, class_names=class_names)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        safetensors.torch.save_file(tensors, temporary, metadata=info.to_metadata())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def fingerprint_model(module: nn.Module) -> str:
    """Return the SHA-256 of a module: its state, and the strides of its convolutions."""
    digest = hashlib.sha256()
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            digest.update(f"{name} {layer.stride} {layer.padding} {layer.dilation}".encode())
    for name, tensor in module.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def set_stem_stride(
    net: nn.Module, name: str, stride: int, *, image_size: int, key: str = "model"
) -> None:
    """Give the first convolution another stride.

    Raises:
        ModelError: the architecture has none whose stride can be changed.
    """
    first = net.pretrained_cfg.get("first_conv")  # type: ignore[union-attr,operator]
    path = first[0] if isinstance(first, (tuple, list)) else first
    conv = net.get_submodule(path) if path else None
    if not isinstance(conv, nn.Conv2d) or conv.kernel_size <= conv.stride:
        # In a patch embedding the stride is the patch: changing it changes the architecture.
        raise ModelError(
            f"{key}_stem_stride: got {stride}, but {name} has no overlapping first convolution; "
            "allowed for it: null"
        )
    conv.stride = (stride, stride)


def _as_map(features: Tensor, net: Any) -> Tensor:
    """Bring features to (B, C, h, w): from channels last, or from tokens (B, N, C)."""
    if features.ndim == 4:
        is_nhwc = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
        return features.permute(0, 3, 1, 2) if is_nhwc else features
    if features.ndim == 3:
        tokens = features[:, getattr(net, "num_prefix_tokens", 0) :]
        side = round(tokens.shape[1] ** 0.5)
        if side * side == tokens.shape[1]:
            return tokens.transpose(1, 2).unflatten(2, (side, side))
    raise ModelError(
        f"forward_features gives shape {tuple(features.shape)}; allowed: (B, C, h, w), or a "
        "square number of tokens (B, N, C)"
    )
