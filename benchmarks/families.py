"""Which of timm's families work, as teacher and as student, with which stem and method.

The smallest model of every family, with random weights, is created, run, saved, loaded, and taken
one training step further by every experiment in both roles. `python -m benchmarks.families` does
it for all and puts the table into docs/models.md.

Shapes: B batch, K classes, H = W image size.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import timm
import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.layer_order import describe_norm
from distillation.base.methods import EXPERIMENTS
from distillation.base.params import load_params
from distillation.data.rows import make_rows
from distillation.distilling.objective import build_objective
from distillation.models.classifier import Classifier, save_weights
from distillation.models.creation import create_classifier
from distillation.models.features import num_prefix_tokens
from distillation.models.names import ModelError
from distillation.models.probing import check_training
from distillation.training.batches import TrainSet
from distillation.training.optimizer import make_optimizer

MEMBERS = tuple(Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split())
"""The smallest of each of timm's modules, and of some a second of another kind."""

LEFT_OUT = {"deepseek_vit": 412, "gemma4_vit": 167}
"""Families whose smallest member is too large to try, and its millions of parameters."""

STRIDES = (None, 1)
IMAGE_SIZE = 32
NUM_CLASSES = 3
PARTNER = "test_resnet"
"""The other model of a pair, with a feature map."""

_BATCH_SIZE = 2
_PAGE = Path("docs/models.md")
_START, _END = "<!-- families -->\n", "<!-- /families -->\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a model with a stride."""

    image_size: int
    refusal: str = ""
    """The sentence with which the model was refused; empty if it works."""
    features: tuple[int, ...] = ()
    """Shape of one image's."""
    num_prefix_tokens: int = 0
    norm: str = ""
    """Where the features are taken, as seen from the normalisations."""
    refused_methods: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    """The sentence by role and method, of those that refuse the model."""


def family_of(name: str) -> str:
    """Return timm's module of a model."""
    return next(module for module in timm.list_modules() if name in timm.list_models(module=module))


def working_size(name: str) -> int:
    """Return `IMAGE_SIZE`, or the smallest tried that the model runs at."""
    for size in (IMAGE_SIZE, 64, 96, 128):
        try:
            create_classifier(name, num_classes=NUM_CLASSES, image_size=size, seed=0)
        except ModelError:
            continue
        return size
    config = timm.get_pretrained_cfg(name)
    return 224 if config is None else config.input_size[-1]


def examine(name: str, stride: int | None, *, image_size: int) -> Outcome:
    """Create a model, run, save and load it, and train it and under it by every experiment.

    Raises:
        Exception: anything but a refusal in one sentence, which the outcome has.
    """

    def create(other: str, seed: int) -> Classifier:
        return create_classifier(
            other,
            num_classes=NUM_CLASSES,
            image_size=image_size,
            seed=seed,
            stem_stride=stride if other == name else None,
        )

    try:
        model = create(name, 0)
        check_training(model, image_size)
    except ModelError as error:
        return Outcome(image_size=image_size, refusal=str(error))
    _check_saving(model, image_size, stride)
    refused = {}
    shape = model.feature_shape(image_size)
    norm = describe_norm(model, image_size)
    for role in ("teacher", "student"):
        for method in EXPERIMENTS:
            pair = {"teacher": create(PARTNER, 1), "student": create(PARTNER, 1)} | {role: model}
            try:
                _take_step(method, image_size=image_size, **pair)
            except ModelError as error:
                refused[role, method] = str(error)
            model.requires_grad_(True)  # a teacher's is taken
    return Outcome(
        image_size=image_size,
        features=shape,
        num_prefix_tokens=num_prefix_tokens(model.net),
        norm=norm,
        refused_methods=refused,
    )


def _check_saving(model: Classifier, image_size: int, stride: int | None) -> None:
    """Save a model, load it into one of another seed, and compare what both predict."""
    with tempfile.TemporaryDirectory(prefix="families-") as folder:
        path = Path(folder) / "model.safetensors"
        save_weights(model, path, class_names=("a", "b", "c"))
        loaded = create_classifier(
            model.name,
            num_classes=NUM_CLASSES,
            image_size=image_size,
            seed=1,
            stem_stride=stride,
            checkpoint=path,
        )
    images = _make_images(image_size)
    with torch.no_grad():
        first, second = model.eval()(images), loaded.eval()(images)
    if not torch.equal(first, second):
        raise AssertionError(f"{model.name}: another model was loaded than was saved")


def _take_step(method: str, *, teacher: Classifier, student: Classifier, image_size: int) -> None:
    images = _make_images(image_size)
    labels = torch.arange(_BATCH_SIZE)
    rows = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    train = TrainSet(
        images=make_rows(rows, images.device), labels=labels, samples=torch.arange(_BATCH_SIZE)
    )
    objective = build_objective(
        method,
        load_params(),
        student=student,
        teacher=teacher,
        train=train,
        image_size=image_size,
        seed=0,
    )
    modules = nn.ModuleList((student, objective)).train()
    optimizer = make_optimizer(modules, learning_rate=1e-4, weight_decay=0.0)
    terms = objective(student, images, labels, {})
    terms["loss"].backward()
    optimizer.step()
    if not all(bool(torch.isfinite(value)) for value in terms.values()):
        raise AssertionError(f"{teacher.name}, {student.name}, {method}: a term is not finite")


def _make_images(image_size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (_BATCH_SIZE, 3, image_size, image_size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def _rows(names: tuple[str, ...]) -> Iterator[list[str]]:
    for name in names:
        start = time.perf_counter()
        size = working_size(name)
        own, fine = (examine(name, stride, image_size=size) for stride in STRIDES)
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        yield [
            family_of(name),
            f"`{name}`",
            str(size),
            _describe(own, name),
            _describe(fine, name),
            str(own.num_prefix_tokens) if own.features else "",
            own.norm if own.features else "",
        ]


def _describe(outcome: Outcome, name: str) -> str:
    """Return what a cell of the table says."""
    if outcome.refusal:
        reason = outcome.refusal.split(f"but {name} ")[-1].split(";")[0]
        return f"refused: {reason}"
    if len(outcome.features) == 3:
        return f"{outcome.features[1]} × {outcome.features[2]} map"
    return "mean of tokens: exp1, exp2" if outcome.features else "logits alone: exp1"


def main(argv: list[str] | None = None) -> int:
    """Examine all families, or those named, and write or print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("names", nargs="*", help="models to print rows of, instead of all")
    names = tuple(parser.parse_args(argv).names)
    torch.set_num_threads(1)
    headers = [
        "family",
        "model",
        "pixels",
        "stride null",
        "stride 1",
        "tokens left out",
        "features",
    ]
    table = tabulate(list(_rows(names or MEMBERS)), headers=headers, tablefmt="github")
    if names:
        print(table)
        return 0
    page = _PAGE.read_text(encoding="utf-8")
    before, rest = page.split(_START)
    _, after = rest.split(_END)
    _PAGE.write_text(f"{before}{_START}\n{table}\n\n{_END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
