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

from distillation.base.files import new_file
from distillation.models.checksums import make_metadata
from distillation.models.features import last_features
from distillation.models.info import ModelInfo
from distillation.models.probing import Shape, probe


class Outputs(NamedTuple):
    """What a model says of a batch."""

    logits: Tensor
    """(B, K)"""
    features: Tensor | None
    """(B, C, h, w), or (B, C) of a model without a map, or None of one with logits alone: what
    `last_features` makes of the output of timm's `forward_features`."""


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
        """Return logits and the last features of images (B, 3, H, W) uint8, in one pass."""
        net: Any = self.net
        raw = net.forward_features(self._normalize(images))
        return Outputs(logits=net.forward_head(raw), features=last_features(raw, net))

    def feature_shape(self, image_size: int) -> Shape:
        """Return the shape of one image's features, by running a black one of H = W pixels."""
        return probe(self, image_size).features

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
    """Write a model's weights to a safetensors file, whole or not at all."""
    with new_file(path) as new:
        new.write_bytes(pack_weights(model, class_names=class_names))


def pack_weights(model: Classifier, *, class_names: tuple[str, ...]) -> bytes:
    """Return the content of a safetensors file with a model's weights.

    Its metadata say what `ModelInfo` holds, the classes in the order of the head's rows, and a
    checksum, which `read_checkpoint` compares.
    """
    tensors = separate_tensors(model.net.state_dict())
    info = dataclasses.replace(model.info, class_names=class_names)
    return safetensors.torch.save(tensors, metadata=make_metadata(info, tensors))


def separate_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict whose tensors share no memory, as safetensors wants them.

    What a model uses under several names (CoaT's position encodings) stands under each of them.
    """
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in state.items():
        values = value.detach().contiguous()
        memory = values.untyped_storage().data_ptr()
        separate[key] = values.clone() if memory in seen else values
        seen.add(memory)
    return separate


def fingerprint_model(module: nn.Module) -> str:
    """Return the SHA-256 of a module: its state, and what decides its outputs beside that.

    These are the strides of convolutions, the normalisation of images, and a model's own arguments.
    """
    digest = hashlib.sha256()
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            digest.update(f"{name} {layer.stride} {layer.padding} {layer.dilation}".encode())
        if isinstance(layer, Classifier):
            digest.update(f"{name} {layer.info.model_args}".encode())
    # Buffers that are not kept with the weights are in no state.
    for name, tensor in (dict(module.named_buffers()) | module.state_dict()).items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
