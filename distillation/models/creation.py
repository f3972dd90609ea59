"""Create a classifier: architecture, stem, weights from anywhere.

Shapes: K classes, H = W image size.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from distillation.base.printable import printable
from distillation.models.adapting import adapt_state
from distillation.models.classifier import Classifier
from distillation.models.heads import fit_head, head_keys, read_class_names
from distillation.models.hub import quick_hub_errors
from distillation.models.info import OWN_STRIDE, ModelInfo
from distillation.models.layers import use_faster_layers
from distillation.models.matching import Wanted, check_match
from distillation.models.names import (
    ModelError,
    base_name,
    check_model_name,
    has_source,
    names_weights,
)
from distillation.models.probing import probe, size_arguments, size_errors
from distillation.models.reading import Checkpoint, read_checkpoint
from distillation.models.stems import own_stem_stride, set_stem_stride

logger = logging.getLogger(__name__)

_SHOWN_TENSORS = 3


def create_classifier(
    name: str,
    *,
    image_size: int,
    seed: int,
    num_classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
    stem_stride: int | None = None,
    pretrained: bool = False,
    checkpoint: Path | str | None = None,
    class_names_file: Path | None = None,
    will_train: bool = False,
    key: str = "model",
    is_quiet: bool = False,
) -> Classifier:
    """Create a timm model for K classes, seeded, in channels_last memory format.

    Args:
        name: a timm name, `local-dir:FOLDER` or `hf-hub:USER/NAME`.
        image_size: H = W in pixels; passed on to architectures that are built for one size.
        seed: seed of the initialisation; torch's global generator is left as it was.
        num_classes: K, where the names of the classes do not matter.
        class_names: of the data set, in the order of its labels.
        stem_stride: stride to give the first convolution; None for the checkpoint's or, where it
            says none, the architecture's own.
        pretrained: start from the weights that the name stands for.
        checkpoint: weights of this architecture: a file, a folder, `local-dir:…` or `hf-hub:…`.
        class_names_file: the order of the checkpoint's classes, one name per line.
        will_train: training is ahead: a head for other classes is replaced by a new one.
        key: `teacher` or `student`, the parameter the name was given as.
        is_quiet: log nothing of what a checkpoint says: it is one of the project's own.

    Raises:
        ModelError: the name is unknown, the stem's stride cannot be set, weights cannot be had, or
            the checkpoint does not fit or says something else than the parameters.
    """
    num_classes = len(class_names) if class_names is not None else num_classes
    assert num_classes is not None
    if names_weights(name, key=key) and not pretrained and checkpoint is None:
        raise ModelError(
            f"{key}: got {name!r}, which names weights, but {key}_pretrained is false; allowed: "
            f"{key}_pretrained=true to start from them, or the name of an architecture alone"
        )
    weights = _read_weights(name, checkpoint, key)
    info = ModelInfo() if weights is None else weights.info
    if has_source(name) and info.architecture is not None:
        name = base_name(info.architecture)
    check_model_name(name, key=key)
    wanted = Wanted(
        key=key,
        architecture=name,
        stem_stride=stem_stride,
        image_size=image_size,
        class_names=class_names,
        will_train=will_train,
    )
    net = _build(
        wanted,
        info.model_args or {},
        num_classes=num_classes,
        seed=seed,
        is_published=pretrained and weights is None,
    )
    if weights is not None:
        own_stride = own_stem_stride(net, image_size)
        remarks = check_match(info, wanted, name=weights.name, own_stride=own_stride)
    if stem_stride is None and isinstance(info.stem_stride, int):
        stem_stride = info.stem_stride
    if stem_stride is not None:
        stride_key = f"{key}_stem_stride"
        set_stem_stride(net, name, stem_stride, image_size=image_size, key=stride_key)
    if weights is not None:
        remarks += _load(net, weights, wanted, class_names_file)
        for remark in () if is_quiet else remarks:
            _log_once(remark)
    elif class_names_file is not None:
        _order_published(net, wanted, class_names_file, is_published=pretrained)
    use_faster_layers(net)
    config: Mapping[str, Any] = net.pretrained_cfg  # type: ignore[assignment]
    classifier = Classifier(
        net,
        name=name,
        num_classes=num_classes,
        info=ModelInfo(
            architecture=name,
            stem_stride=OWN_STRIDE if stem_stride is None else stem_stride,
            image_size=image_size,
            mean=info.mean or tuple(config["mean"]),
            std=info.std or tuple(config["std"]),
            model_args=info.model_args,
        ),
    )
    _lay_out_channels_last(classifier)
    probe(classifier, image_size)
    return classifier


def _lay_out_channels_last(module: nn.Module) -> None:
    """Put all tensors of four dimensions in channels_last memory format, in place.

    `Module.to` would try those of five as well, and fail.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


def _read_weights(name: str, checkpoint: Path | str | None, key: str) -> Checkpoint | None:
    """Read the checkpoint, or the weights of a folder or repository that the name stands for."""
    if checkpoint is not None:
        return read_checkpoint(str(checkpoint), key=f"{key}_checkpoint")
    return read_checkpoint(name, key=key) if has_source(name) else None


def _build(
    wanted: Wanted,
    arguments: Mapping[str, Any],
    *,
    num_classes: int,
    seed: int,
    is_published: bool,
) -> nn.Module:
    """Build the network, initialised from a seed or with timm's published weights."""
    name, size = wanted.architecture, wanted.image_size
    extra = {**arguments, **size_arguments(name, size), "num_classes": num_classes}
    with torch.random.fork_rng(devices=[]), size_errors(name, size):
        torch.manual_seed(seed)
        try:
            net = timm.create_model(name, pretrained=False, **extra)
        except (TypeError, KeyError, AttributeError) as error:
            if not arguments:
                raise
            given = printable(", ".join(sorted(arguments)))
            raise ModelError(
                f"{wanted.key}: config.json gives model_args {given}, and {name} does not take "
                f"them ({printable(str(error))}); allowed: what timm's save_for_hf writes"
            ) from error
        if is_published:
            _check_published(wanted, num_classes)
            torch.manual_seed(seed)
            net = _fetch_published(wanted, extra)
    return net


def _fetch_published(wanted: Wanted, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network with timm's published weights; that it can be built is known."""
    name, key = wanted.architecture, wanted.key
    way_out = (
        f"allowed: a network that reaches the Hub, a file of these weights as {key}_checkpoint "
        f"(its head is replaced where training is ahead), or {key}_pretrained=false"
    )
    with quick_hub_errors(f"{key}_pretrained: the published weights of {name}", way_out=way_out):
        return timm.create_model(name, pretrained=True, **arguments)


def _check_published(wanted: Wanted, num_classes: int) -> None:
    """Raise `ModelError` where a published head would be replaced, and no training is ahead."""
    key, published = wanted.key, timm.get_pretrained_cfg(wanted.architecture)
    if wanted.will_train or published is None or published.num_classes == num_classes:
        return
    raise ModelError(
        f"{key}: the published weights of {wanted.architecture} are for {published.num_classes} "
        f"classes, the data set has {num_classes}; allowed: {key}_epochs above 0, which trains a "
        f"new head, or a {key}_checkpoint trained on the data set's classes"
    )


def _load(
    net: nn.Module, weights: Checkpoint, wanted: Wanted, class_names_file: Path | None
) -> list[str]:
    """Load a checkpoint, every tensor of it but the head's or none; returns lines for the log."""
    class_names = weights.info.class_names
    if class_names_file is not None:
        class_names = _given_order(class_names_file, weights, wanted.key)
    state, remarks = adapt_state(weights.state, net)
    head = set(head_keys(net))
    # The body first: the head of another architecture is not to be put down to the classes.
    _check_tensors(state, net, weights.name, wanted, without=head)
    state, about_head = fit_head(state, net, wanted, name=weights.name, class_names=class_names)
    _check_tensors(state, net, weights.name, wanted)
    net.load_state_dict(state, strict=False)
    return [*weights.remarks, *remarks, *about_head]


def _order_published(
    net: nn.Module, wanted: Wanted, class_names_file: Path, *, is_published: bool
) -> None:
    """Put the rows of timm's published head into the data set's order."""
    published = timm.get_pretrained_cfg(wanted.architecture)
    num_classes = 0 if published is None else published.num_classes
    if not is_published or num_classes != len(wanted.class_names or ()):
        raise ModelError(
            f"{wanted.key}_class_names: got {class_names_file}, but there are no weights with a "
            f"head for the data set's classes; allowed: null, or a {wanted.key}_checkpoint whose "
            "classes the file names"
        )
    name, key = f"timm's weights of {wanted.architecture}", f"{wanted.key}_class_names"
    class_names = read_class_names(class_names_file, key=key)
    state, _ = fit_head(net.state_dict(), net, wanted, name=name, class_names=class_names)
    net.load_state_dict(state)


def _given_order(path: Path, weights: Checkpoint, key: str) -> tuple[str, ...]:
    names, said = read_class_names(path, key=f"{key}_class_names"), weights.info.class_names
    if said is not None and said != names:
        raise ModelError(
            f"{key}_class_names: {path} gives another order or other classes than the checkpoint "
            f"{weights.name} says itself; allowed: null, since it says them"
        )
    return names


def _check_tensors(
    state: Mapping[str, Tensor],
    net: nn.Module,
    name: str,
    wanted: Wanted,
    *,
    without: Collection[str] = (),
) -> None:
    """Raise `ModelError` unless a state has all tensors of a network in their shapes, and no other.

    Args:
        state: the state.
        net: the network.
        name: the checkpoint's, for messages.
        wanted: what the parameters ask for, for messages.
        without: keys that are not looked at.
    """
    own = net.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    reshaped = [key for key in own if key in state and own[key].shape != state[key].shape]
    wrong = {
        **{key: f"{key} has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
           for key in reshaped},
        **{key: f"{key} is missing" for key in missing},
        **{key: f"{key} is not part of it" for key in unexpected},
    }  # fmt: skip
    details = [text for key, text in wrong.items() if key not in without]
    if details:
        raise ModelError(
            f"{wanted.key}_checkpoint {name}: the weights are not those of {wanted.architecture}: "
            f"{'; '.join(_shown(details))} ({len(details)} tensors differ); allowed: a checkpoint "
            f"of {wanted.architecture}"
        )


def _shown(details: list[str]) -> list[str]:
    """Return a few from both ends: the first differ in shape, the last are not part of it."""
    return (
        details
        if len(details) <= 2 * _SHOWN_TENSORS
        else [*details[:_SHOWN_TENSORS], "…", *details[-_SHOWN_TENSORS:]]
    )


@functools.cache
def _log_once(text: str) -> None:
    """Log what is true of every model that is made of the same file once."""
    logger.info("%s", printable(text))
