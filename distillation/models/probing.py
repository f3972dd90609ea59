"""What a model accepts, found by running it once; every failure becomes one sentence.

Architectures state only in part which images they take, and fail in their own ways: at creation
or in the pass, with assertions, shape errors and divisions by zero. So a model is run on a black
image of the real size before anything else is done with it.

Shapes: B batch, K classes, H = W image size.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import timm
import torch
from torch import nn

from distillation.base.limits import is_out_of_memory
from distillation.models.features import Shape
from distillation.models.names import ModelError

if TYPE_CHECKING:
    from distillation.models.classifier import Classifier

_STEPS = (28, 32, 48)  # what architectures reduce an image by, or multiples of it
_MAX_TRIED = 8  # sizes, to name one that works
_MAX_CAUSE = 80  # characters of a model's own error


class Probe(NamedTuple):
    """What a model makes of one image."""

    logits: tuple[int, ...]
    """(K,)"""
    features: Shape
    """(C, h, w) of a map, (C,) of pooled features, () where there are only logits."""


def size_arguments(name: str, image_size: int) -> dict[str, Any]:
    """Return what timm needs to build a model for H = W pixels."""
    config = timm.get_pretrained_cfg(name)
    return {"img_size": image_size} if config is not None and config.fixed_input_size else {}


@contextlib.contextmanager
def size_errors(name: str, image_size: int) -> Iterator[None]:
    """Turn whatever a model raises while it is built or run into one `ModelError`.

    A lack of memory says nothing of the size, and passes.
    """
    try:
        yield
    except ModelError:
        raise
    except NotImplementedError as error:
        raise _no_classifier(name) from error
    # Assertions, RuntimeError, ValueError, ZeroDivisionError, TypeError: each architecture has
    # its own, and the answer for the user is the same.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"image_size: got {image_size}, but {name} cannot be run on images of {image_size} × "
            f"{image_size} pixels ({_shorten(error)}); allowed for it: "
            f"{_describe_sizes(name, image_size)}"
        ) from error


def probe(classifier: Classifier, image_size: int) -> Probe:
    """Run one black image of H = W pixels, in `eval()`; the model stays as it is.

    Raises:
        ModelError: the model cannot take such images, or gives no logits (B, K).
    """
    was_training = classifier.training
    image = _black_images(classifier, 1, image_size)
    classifier.eval()
    try:
        # Not inference_mode: what a model caches in it could not be trained with afterwards.
        with size_errors(classifier.name, image_size), torch.no_grad():
            logits, features = classifier.outputs(image)
    finally:
        classifier.train(was_training)
    _check_logits(classifier, logits, batch_size=1)
    shape = () if features is None else tuple(features.shape[1:])
    return Probe(logits=tuple(logits.shape[1:]), features=shape)


def check_training(
    classifier: Classifier, image_size: int, *, batch_size: int = 2, key: str = "batch_size"
) -> None:
    """Run a batch of black images of H = W pixels forward and backward, in `train()`, on a copy.

    Args:
        classifier: the model; it stays as it is.
        image_size: H = W.
        batch_size: B.
        key: the parameter the batch size was given as, for messages.

    Raises:
        ModelError: the model cannot be trained on such images, or not by so few at a time.
    """
    model = copy.deepcopy(classifier).train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    images = _black_images(model, batch_size, image_size)
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), size_errors(model.name, image_size):
        try:
            logits = model(images)
            _check_logits(model, logits, batch_size=batch_size)
            logits.sum().backward()
        except ValueError as error:
            if batch_size > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise ModelError(
                f"{key}: got {batch_size}, but {model.name} normalises over the batch, and "
                f"has a single value per channel at image_size {image_size}; allowed for it: 2 or "
                "more images in a batch"
            ) from error


def head_parameters(classifier: Classifier, images: torch.Tensor) -> list[nn.Parameter]:
    """Return the parameters that the logits depend on and the last features do not.

    All are, of a model without features.

    Args:
        classifier: the model; it stays as it is.
        images: (B, 3, H, W) uint8, any that it can take.
    """
    names, parameters = zip(*classifier.named_parameters(), strict=True)
    model = copy.deepcopy(classifier).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    features = model.outputs(images).features
    if features is None:
        return list(parameters)
    by_name = dict(model.named_parameters())
    grads = torch.autograd.grad(features.sum(), [by_name[n] for n in names], allow_unused=True)
    return [one for one, grad in zip(parameters, grads, strict=True) if grad is None]


def _black_images(classifier: Classifier, count: int, image_size: int) -> torch.Tensor:
    shape = (count, 3, image_size, image_size)
    return torch.zeros(shape, dtype=torch.uint8, device=classifier.mean.device)


def _check_logits(classifier: Classifier, logits: Any, *, batch_size: int) -> None:
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else None
    if shape != (batch_size, classifier.num_classes):
        raise _no_classifier(classifier.name)


def _shorten(error: Exception) -> str:
    """Return the kind of an error and the beginning of what it says, for a place in a sentence."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": .").replace(". ", ", ")
    return text if len(text) <= _MAX_CAUSE else f"{text[:_MAX_CAUSE]}…"


def _no_classifier(name: str) -> ModelError:
    return ModelError(
        f"model: got {name}, which gives no logits for the classes; allowed: a timm model that "
        "has a classifier"
    )


def _describe_sizes(name: str, image_size: int) -> str:
    """Return the sizes that timm names for a model, and the nearest that was found to work."""
    config = timm.get_pretrained_cfg(name)
    known = config.input_size[-1] if config is not None else 224
    least = config.min_input_size[-1] if config is not None and config.min_input_size else 0
    stop = max(known, image_size + 2 * max(_STEPS)) + 1
    near = {size for step in _STEPS for size in range(step, stop, step) if size >= least}
    sizes = sorted(near - {image_size}, key=lambda size: (abs(size - image_size), size))
    for size in [*sizes[:_MAX_TRIED], known]:
        if _works(name, size):
            return f"{size}" if size == known else f"{size} (the nearest tried), {known} (timm's)"
    return f"{known}, for which timm has it"


def _works(name: str, image_size: int) -> bool:
    """Try a size on the meta device, where only shapes are computed."""
    try:
        with torch.device("meta"), torch.no_grad(), warnings.catch_warnings(action="ignore"):
            net: nn.Module = timm.create_model(name, **size_arguments(name, image_size)).eval()
            net(torch.empty(1, 3, image_size, image_size))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return False
    return True
