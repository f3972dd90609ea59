"""The student as timm and the Hugging Face Hub keep models: `model.safetensors` and `config.json`.

timm loads such a folder by the name `local-dir:FOLDER`. Its configuration cannot say that the
first convolution was given another stride; then the folder must not load that way, since the
weights fit either stride and only the predictions would be wrong. Both ways are tried here.

Shapes: N images, S = image_size, K classes.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from timm.models._hub import save_config_for_hf
from torch import nn

from distillation.base.files import write_json
from distillation.base.limits import is_out_of_memory
from distillation.export.agreement import check_agreement, compare_logits
from distillation.export.errors import ExportError
from distillation.models.classifier import Classifier, save_weights

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"

STEM_KEY = "stem_stride"
"""An argument that no model of timm has."""

_OF_PUBLISHED_WEIGHTS = (
    "tag",
    "license",
    "description",
    "origin_url",
    "paper_name",
    "paper_ids",
    "notes",
    "label_descriptions",
)
"""What timm's configuration tells of its own published weights, which these are not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimmFolder:
    """How the folder's model is made with timm alone."""

    architecture: str
    model_args: Mapping[str, Any]
    """What `timm.create_model` takes beside the architecture."""
    strides: Mapping[str, tuple[int, int]]
    """Strides to set by hand, by the path of the layer; none where the stem is timm's own."""
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    loads_by_name: bool
    """Whether `timm.create_model("local-dir:…", pretrained=True)` makes this model; it fails where
    it does not."""

    def summary(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        values = dataclasses.asdict(self)
        return json.loads(json.dumps(values))


def write_timm_folder(
    student: Classifier, directory: Path, *, class_names: tuple[str, ...], image_size: int
) -> TimmFolder:
    """Write weights and configuration, without looking yet at what timm makes of them.

    Args:
        student: the classifier, on the CPU.
        directory: the folder; it exists.
        class_names: K names in the order of the logits.
        image_size: S.

    Raises:
        ExportError: timm cannot write the model's arguments down, or not build it from them.
    """
    save_weights(student, directory / WEIGHTS_FILE, class_names=class_names)
    path = directory / CONFIG_FILE
    prepared: dict[str, Any] = {  # as sources/decode.py prepares an image
        "input_size": (3, image_size, image_size),
        "mean": _to_numbers(student.mean),
        "std": _to_numbers(student.std),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    config = _describe(student, path, class_names=class_names, prepared=prepared)
    arguments = config.get("model_args", {})
    plain = _build(config["architecture"], arguments, name=student.name)
    strides = changed_strides(student.net, plain)
    if strides:
        stem = next(iter(strides.values()))
        config["model_args"] = {**arguments, STEM_KEY: stem[0]}
    write_json(path, config)
    return TimmFolder(
        architecture=config["architecture"],
        model_args=arguments,
        strides=strides,
        image_size=image_size,
        mean=prepared["mean"],
        std=prepared["std"],
        loads_by_name=not strides,
    )


def _describe(
    student: Classifier, path: Path, *, class_names: tuple[str, ...], prepared: Mapping[str, Any]
) -> dict[str, Any]:
    """Return timm's configuration of the student, by way of a file at `path`."""
    try:
        save_config_for_hf(
            student.net,
            str(path),
            model_config={"label_names": list(class_names)},
            data_config=dict(prepared),
        )
    except ValueError as error:
        raise ExportError(
            f"{student.name}: timm cannot describe it in {CONFIG_FILE}: {error}"
        ) from error
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    published = config["pretrained_cfg"]
    for key in _OF_PUBLISHED_WEIGHTS:
        published.pop(key, None)
    if tag := student.name.partition(".")[2]:
        published["tag"] = tag
    return config


def check_timm_folder(
    folder: TimmFolder,
    directory: Path,
    *,
    images: NDArray[np.uint8],
    logits: NDArray[np.float32],
    classify: Callable[[Classifier, NDArray[np.uint8]], NDArray[np.float32]],
) -> tuple[TimmFolder, list[str]]:
    """Load the folder with timm alone and see that it predicts what the student predicts.

    Args:
        folder: what `write_timm_folder` wrote.
        directory: where.
        images: (N, S, S, 3) uint8.
        logits: (N, K), the student's.
        classify: returns a classifier's logits (N, K).

    Returns:
        How it loads, and remarks.

    Raises:
        ExportError: what timm makes of the folder predicts something else, whether it is loaded
            by its name or as the card says.
    """

    def check(net: nn.Module, how: str) -> None:
        classifier = Classifier(net, name=folder.architecture, num_classes=logits.shape[1])
        agreement = compare_logits(logits, classify(classifier, images))
        check_agreement(agreement, name=f"{folder.architecture}, {how}", reader="timm")

    if folder.strides:
        check(load_by_hand(folder, directory), "loaded from model.safetensors by hand")
        _make_sure_it_fails(directory, folder.architecture)
        return folder, []
    try:
        net = load_by_name(directory)
    # timm's models fail in ways of their own; a folder that does not load does not lie.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        check(load_by_hand(folder, directory), "loaded from model.safetensors by hand")
        remark = (
            f"timm cannot load the folder by its name ({reason}): load model.safetensors as the "
            "card shows."
        )
        return dataclasses.replace(folder, loads_by_name=False), [remark]
    check(net, "loaded from its folder by name")
    return folder, []


def changed_strides(net: nn.Module, plain: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the convolutions' strides that differ from another network's, by path.

    Args:
        net: a network.
        plain: another of its architecture.
    """
    own, given = _strides(plain), _strides(net)
    return {path: stride for path, stride in given.items() if stride != own.get(path)}


def load_by_name(directory: Path) -> nn.Module:
    """Load a folder as timm does, from its name alone."""
    with torch.random.fork_rng(devices=[]):
        return timm.create_model(f"local-dir:{directory}", pretrained=True)


def load_by_hand(folder: TimmFolder, directory: Path) -> nn.Module:
    """Load a folder as its card says: build the architecture, set the strides, load the weights.

    Raises:
        ExportError: timm cannot build the architecture from its arguments, or the weights are not
            the architecture's.
    """
    net = _build(folder.architecture, folder.model_args, name=folder.architecture)
    for path, stride in folder.strides.items():
        net.get_submodule(path).stride = stride  # type: ignore[assignment]
    try:
        net.load_state_dict(load_file(directory / WEIGHTS_FILE))
    except RuntimeError as error:  # tensors that are missing, too many or of another shape
        raise ExportError(
            f"{folder.architecture}: {WEIGHTS_FILE} does not fit the model that timm builds: "
            f"{' '.join(str(error).split())}"
        ) from error
    own: Any = net.pretrained_cfg
    net.pretrained_cfg = {**own, "mean": folder.mean, "std": folder.std}  # type: ignore[assignment]
    return net


def _make_sure_it_fails(directory: Path, architecture: str) -> None:
    """Raise `ExportError` where timm takes the folder by name in spite of the stem's stride."""
    if not _loads(directory):
        return
    # An architecture that takes any argument; the configuration of weights takes none of it.
    path = directory / CONFIG_FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    config["pretrained_cfg"][STEM_KEY] = config["model_args"][STEM_KEY]
    write_json(path, config)
    if _loads(directory):
        raise ExportError(
            f"{architecture}: timm loads the folder by its name with another stem than the "
            "student's, and would predict something else; set its stem stride to null"
        )


def _loads(directory: Path) -> bool:
    try:
        load_by_name(directory)
    except Exception as error:  # whatever it is, nothing was loaded
        if is_out_of_memory(error):
            raise
        return False
    return True


def _build(architecture: str, arguments: Mapping[str, Any], *, name: str) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(architecture, pretrained=False, **copy.deepcopy(arguments))
    # timm's models fail in ways of their own.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"{name}: timm cannot build it from the arguments {dict(arguments)} that it notes "
            f"itself: {reason}"
        ) from error


def _strides(net: nn.Module) -> dict[str, tuple[int, int]]:
    return {
        path: (module.stride[0], module.stride[1])
        for path, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def _to_numbers(values: torch.Tensor) -> tuple[float, ...]:
    """Return a buffer's numbers as they were written, without float32's tail."""
    return tuple(round(float(value), 7) for value in values.flatten())
