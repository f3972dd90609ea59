"""Batches of augmented views with their labels and, where there are any, the teacher's outputs.

Shapes: N samples in the data set, M of them trained on, B in a batch, H = W image size.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from distillation.data.rows import Indices, Rows
from distillation.training.hashing import Draws
from distillation.training.labels import UNLABELED as UNLABELED
from distillation.training.labels import MixedLabels
from distillation.training.mixing import draw_mixture, draw_partners, mix
from distillation.training.views import ViewSettings, augment

_PREFETCHED_BATCHES = 2

_Argument = TypeVar("_Argument")
_Item = TypeVar("_Item")


class TeacherOutputs(Protocol):
    """Outputs of a teacher that were computed before the training."""

    @property
    def is_streamed(self) -> bool:
        """Whether taking them reads a file."""
        ...

    def take(self, samples: Indices, view_number: int) -> dict[str, Tensor]:
        """Return named tensors (B, …) for one view of some samples."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images (N, H, W, 3) uint8 and their labels (N,) int64 on the device."""

    images: Rows
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSet(ImageSet):
    """A data set and what a training takes of it."""

    samples: Tensor
    """(M,) int64 on the host: the samples to train on, as indices into the data set."""
    teacher_outputs: TeacherOutputs | None = None
    repeats_to: int = 0
    """How many images an epoch shows at least; where there are fewer samples, they come again."""

    @property
    def epoch_size(self) -> int:
        """Return how many images an epoch shows, before its last batch is filled."""
        return max(len(self.samples), self.repeats_to)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """What one training step gets."""

    images: Tensor
    """(B, 3, H, W) uint8 in channels_last memory format."""
    labels: Tensor
    """(B,) int64, `UNLABELED` where it may not be used."""
    partner_labels: Tensor | None = None
    """(B,) int64, likewise, of the samples mixed in; None where views show one sample each."""
    label_shares: Tensor | None = None
    """(B,) float32: how much `labels` count, and `partner_labels` the rest; None likewise."""
    teacher_outputs: dict[str, Tensor]
    """The teacher's outputs for these very views; empty when there are none."""

    @property
    def targets(self) -> Tensor | MixedLabels:
        """Return the labels as an objective takes them."""
        if self.partner_labels is None or self.label_shares is None:
            return self.labels
        return MixedLabels(self.labels, self.partner_labels, self.label_shares)


def batch_shape(num_samples: int, batch_size: int) -> tuple[int, int]:
    """Return the number of steps of an epoch and the size all its batches have.

    The size is the smallest, at most `batch_size`, that shows every sample in as few steps as
    `batch_size` needs: a short last batch would have noisier normalisation statistics, and a
    second shape would have to be compiled.
    """
    num_steps = -(-num_samples // batch_size)
    return num_steps, -(-num_samples // num_steps)


def shuffle(samples: Tensor, num_drawn: int, *, generator: torch.Generator) -> Tensor:
    """Return one epoch's order of the samples (M,), as many as are to be drawn, M or more.

    All samples come in a random order, as often as they fit in, each time in another; then the
    first few of that order once more, to fill what is left.
    """
    passes = [
        samples[torch.randperm(len(samples), generator=generator)]
        for _ in range(num_drawn // len(samples))
    ]
    return torch.cat([*passes, passes[0][: num_drawn % len(samples)]])


def iterate_batches(
    train: TrainSet,
    order: Tensor,
    batch_size: int,
    view_number: int | Tensor,
    *,
    views: ViewSettings,
) -> Iterator[Batch]:
    """Yield the batches of one epoch; what lies in files is read ahead by a thread.

    Args:
        train: the data set.
        order: sample indices on the host, as `shuffle` gives them.
        batch_size: the size of every batch.
        view_number: which view of every sample to show, or of each in the order (len(order),);
            a teacher's stored outputs are looked up by one number.
        views: what a view may do to an image; partners that are mixed in are drawn among
            `train.samples`.
    """
    is_streamed = train.images.is_streamed or (
        train.teacher_outputs and train.teacher_outputs.is_streamed
    )
    chunks = _split(train, order, batch_size, view_number, views=views)
    load = functools.partial(_load, train)
    for chunk, loaded in (_map_ahead if is_streamed else map)(load, chunks):
        yield _make_batch(train, chunk, loaded, views=views)


class _Chunk(NamedTuple):
    """Which images a batch shows."""

    samples: Indices
    view: int | Tensor
    """One number, or (B,) on the device."""
    partners: Indices | None
    """The samples mixed in, where views are mixed."""


class _Loaded(NamedTuple):
    """What of a batch may lie in files."""

    images: Tensor
    partner_images: Tensor | None
    teacher_outputs: dict[str, Tensor]


def _split(
    train: TrainSet,
    order: Tensor,
    batch_size: int,
    view_number: int | Tensor,
    *,
    views: ViewSettings,
) -> Iterator[_Chunk]:
    """Cut an epoch's order into batches, each index on the host and on the device at once."""
    device = train.labels.device

    def split(indices: Tensor) -> Iterator[Indices]:
        parts = zip(indices.split(batch_size), indices.to(device).split(batch_size), strict=True)
        return itertools.starmap(Indices, parts)

    view_numbers: Iterable[int | Tensor] = itertools.repeat(view_number)
    if isinstance(view_number, Tensor):
        assert train.teacher_outputs is None, "stored outputs are looked up by one view's number"
        view_numbers = view_number.to(device).split(batch_size)
    partners: Iterable[Indices | None] = itertools.repeat(None)
    if views.mixes:
        draws = Draws(seed=views.view_seed, samples=order, view_number=view_number)
        # Sorted: the partner depends on which samples there are, not on their order.
        partners = split(draw_partners(draws, train.samples.sort().values))
    for samples, view, mixed_in in zip(split(order), view_numbers, partners, strict=False):
        yield _Chunk(samples, view, mixed_in)


def _load(train: TrainSet, chunk: _Chunk) -> tuple[_Chunk, _Loaded]:
    """Read what a batch is made of; runs in a thread where something lies in a file."""
    outputs = {}
    if train.teacher_outputs is not None and isinstance(chunk.view, int):
        outputs = train.teacher_outputs.take(chunk.samples, chunk.view)
    partner_images = None if chunk.partners is None else train.images.take(chunk.partners)
    return chunk, _Loaded(train.images.take(chunk.samples), partner_images, outputs)


def _make_batch(train: TrainSet, chunk: _Chunk, loaded: _Loaded, *, views: ViewSettings) -> Batch:
    """Turn images into views, mixed ones where they are to be."""
    samples = chunk.samples.device
    images = augment(loaded.images, samples, chunk.view, settings=views)
    labels = train.labels.index_select(0, samples)
    if chunk.partners is None or loaded.partner_images is None:
        return Batch(images=images, labels=labels, teacher_outputs=loaded.teacher_outputs)
    partners = chunk.partners.device
    partner_images = augment(loaded.partner_images, partners, chunk.view, settings=views)
    mixture = draw_mixture(
        Draws(seed=views.view_seed, samples=samples, view_number=chunk.view),
        height=images.shape[2],
        width=images.shape[3],
        mixup=views.mixup,
        cutmix=views.cutmix,
    )
    return Batch(
        images=mix(images, partner_images, mixture),
        labels=labels,
        partner_labels=train.labels.index_select(0, partners),
        label_shares=mixture.shares,
        teacher_outputs=loaded.teacher_outputs,
    )


def _map_ahead(
    function: Callable[[_Argument], _Item], arguments: Iterable[_Argument]
) -> Iterator[_Item]:
    """Do what `map` does, in a thread, a few items ahead of what is taken."""
    # One thread inside the thread: a team of its own would spin beside the training's.
    with ThreadPoolExecutor(
        max_workers=1,
        thread_name_prefix="prefetch",
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        pending: collections.deque[Future[_Item]] = collections.deque()
        for argument in arguments:
            pending.append(pool.submit(function, argument))
            if len(pending) > _PREFETCHED_BATCHES:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
