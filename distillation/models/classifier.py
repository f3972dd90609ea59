"""timm models as classifiers of uint8 images: create, adapt the stem, load and save weights.

A `Classifier` wraps a timm model with that model's own input normalisation, so teacher and
student can be given the very same pixels. Weights are saved as plain timm state dicts in
safetensors files, without the wrapper, and without any training state.

Shapes: B batch, K classes, H = W image size, C channels and h, w size of the last feature map.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from distillation.models.layers import use_faster_layers
from distillation.models.names import ModelError, check_model_name

logger = logging.getLogger(__name__)


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

    def __init__(self, net: nn.Module, *, name: str, num_classes: int) -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.num_classes = num_classes
        config: dict[str, Any] = net.pretrained_cfg  # type: ignore[assignment]
        for key in ("mean", "std"):
            value = torch.tensor(config[key], dtype=torch.float32).view(1, -1, 1, 1)
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


def create_classifier(
    name: str,
    *,
    num_classes: int,
    image_size: int,
    seed: int,
    stem_stride: int | None = None,
    pretrained: bool = False,
    checkpoint: Path | None = None,
) -> Classifier:
    """Create a timm model for K classes, seeded, in channels_last memory format.

    Args:
        name: a timm model name.
        num_classes: K.
        image_size: H = W in pixels; passed on to architectures that are built for one size.
        seed: seed of the initialisation; torch's global generator is left as it was.
        stem_stride: stride to give the first convolution, or None for the architecture's own.
        pretrained: start from timm's published weights with a new, random classifier.
        checkpoint: a file of weights for exactly this architecture and number of classes.

    Raises:
        ModelError: the name is unknown, the stem's stride cannot be set, the published weights
            cannot be had, or the checkpoint does not fit.
    """
    check_model_name(name)
    extra: dict[str, Any] = {}
    published = timm.get_pretrained_cfg(name)
    if published is not None and published.fixed_input_size:
        extra["img_size"] = image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # A checkpoint replaces every weight, so nothing is fetched when there is one.
        net = _create(name, pretrained and checkpoint is None, num_classes=num_classes, **extra)
    if stem_stride is not None:
        _set_stem_stride(net, name, stem_stride)
    if checkpoint is not None:
        load_weights(net, checkpoint, name=name)
    use_faster_layers(net)
    classifier = Classifier(net, name=name, num_classes=num_classes)
    return classifier.to(memory_format=torch.channels_last)


def freeze(model: Classifier) -> Classifier:
    """Put a model in `eval()` and take gradients from every parameter; returns it."""
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def save_weights(model: Classifier, path: Path, *, class_names: tuple[str, ...]) -> None:
    """Write a model's weights to a safetensors file, whole or not at all.

    The file's metadata has one entry, `distillation`: architecture and class names as JSON.
    """
    tensors = {key: value.detach().contiguous() for key, value in model.net.state_dict().items()}
    about = {"architecture": model.name, "class_names": list(class_names)}
    # One entry: safetensors writes several in an order that changes from process to process, and
    # the same weights should be the same file.
    metadata = {"distillation": json.dumps(about)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        safetensors.torch.save_file(tensors, temporary, metadata=metadata)
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


def load_weights(net: nn.Module, path: Path, *, name: str) -> None:
    """Load a checkpoint into a timm model, every tensor of it or none.

    Args:
        net: the timm model.
        path: a safetensors file, or a file of `torch.save` that holds tensors only: a state
            dict, or a mapping with one under `state_dict` or `model`.
        name: the architecture, for messages.

    Raises:
        ModelError: the file is missing, damaged, or its tensors are not this model's.
    """
    state = _read_state_dict(path)
    own = net.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped = [key for key in own if key in state and own[key].shape != state[key].shape]
    classifier = str(net.pretrained_cfg.get("classifier"))  # type: ignore[union-attr,operator]
    is_class_count = all(
        key.startswith(classifier + ".")
        and own[key].ndim == state[key].ndim
        and own[key].shape[1:] == state[key].shape[1:]
        for key in reshaped
    )
    if reshaped and is_class_count and not missing and not unexpected:
        key = reshaped[0]
        raise ModelError(
            f"{path}: {key} is for {state[key].shape[0]} classes, the data set has "
            f"{own[key].shape[0]}; allowed: a checkpoint trained on these classes"
        )
    if missing or unexpected or reshaped:
        details = [
            *(f"{key} has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
              for key in reshaped[:3]),
            *(f"{key} is missing" for key in missing[:3]),
            *(f"{key} is not part of it" for key in unexpected[:3]),
        ]  # fmt: skip
        total = len(missing) + len(unexpected) + len(reshaped)
        raise ModelError(
            f"{path}: the weights are not those of {name}: {'; '.join(details)} "
            f"({total} tensors differ)"
        )
    net.load_state_dict(state, strict=not any(key not in state for key in own))


def _create(name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    if not pretrained:
        return timm.create_model(name, pretrained=False, **kwargs)
    try:
        return timm.create_model(name, pretrained=True, **kwargs)
    # timm fetches through several libraries, each with its own errors; whatever went wrong,
    # the answer for the user is the same.
    except Exception as error:
        raise ModelError(
            f"pretrained: the published weights of {name} cannot be had "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). "
            "Give a local file with teacher_checkpoint or student_checkpoint, or set "
            "pretrained to false"
        ) from error


def _set_stem_stride(net: nn.Module, name: str, stride: int) -> None:
    first = net.pretrained_cfg.get("first_conv")  # type: ignore[union-attr,operator]
    path = first[0] if isinstance(first, (tuple, list)) else first
    conv = net.get_submodule(path) if path else None
    if not isinstance(conv, nn.Conv2d) or conv.kernel_size <= conv.stride:
        # In a patch embedding the stride is the patch: changing it changes the architecture.
        raise ModelError(
            f"stem_stride: got {stride}, but {name} has no overlapping first convolution; "
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


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"checkpoint {path}: no such file")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    # Whatever a damaged file makes the readers stumble over (struct.error, IndexError, …), the
    # answer for the user is the same.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"checkpoint {path}: damaged, or not a file of tensors alone: {reason}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"checkpoint {path}: holds no state dict (a mapping of names to tensors)")
    return {str(key).removeprefix("module."): value for key, value in content.items()}
