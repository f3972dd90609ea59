"""Batches of augmented views with their labels and, where there are any, the teacher's outputs.

Shapes: N samples in the data set, M of them trained on, B in a batch, H = W image size.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from distillation.data.rows import Indices, Rows
from distillation.training.views import ViewSettings, augment

UNLABELED = -1
"""The label of a sample whose label may not be used."""

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
    teacher_outputs: dict[str, Tensor]
    """The teacher's outputs for these very views; empty when there are none."""


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
        views: what a view may do to an image.
    """
    device = train.labels.device
    view_numbers: Iterable[int | Tensor] = itertools.repeat(view_number)
    if isinstance(view_number, Tensor):
        assert train.teacher_outputs is None, "stored outputs are looked up by one view's number"
        view_numbers = view_number.to(device).split(batch_size)
    chunks = zip(
        order.split(batch_size), order.to(device).split(batch_size), view_numbers, strict=False
    )

    def load(
        chunk: tuple[Tensor, Tensor, int | Tensor],
    ) -> tuple[Indices, int | Tensor, Tensor, dict[str, Tensor]]:
        samples, view = Indices(*chunk[:2]), chunk[2]
        outputs = {}
        if train.teacher_outputs is not None and isinstance(view, int):
            outputs = train.teacher_outputs.take(samples, view)
        return samples, view, train.images.take(samples), outputs

    is_streamed = train.images.is_streamed or (
        train.teacher_outputs and train.teacher_outputs.is_streamed
    )
    for samples, view, images, outputs in (_map_ahead if is_streamed else map)(load, chunks):
        yield Batch(
            images=augment(images, samples.device, view, settings=views),
            labels=train.labels.index_select(0, samples.device),
            teacher_outputs=outputs,
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
