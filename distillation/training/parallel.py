"""One training on several devices: what each of its processes, a rank, knows of the others.

Every rank holds the whole model and takes its share of every batch; `DistributedDataParallel`
averages the gradients, weighted so that the result is the gradient of the whole batch's mean. So
batches, views and steps are those of one device, and so are the weights but for rounding. Two
exceptions: dropout draws other masks; and on the CPU, where torch cannot synchronise it, batch
normalisation sees a rank's own share, and the first rank's running statistics are the model's.

Rank 0 measures and writes. `runs/launching.py` starts the ranks, and ends all when one fails.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distillation.models.classifier import Classifier

_TIMEOUT = datetime.timedelta(days=7)
"""Others wait while rank 0 measures, however long; whoever started them sees it when one fails."""

MIN_SHARE = 2
"""So many images of a batch are the least for a device: batch normalisation cannot do with one."""

_Terms = Callable[..., dict[str, Tensor]]
_Value = TypeVar("_Value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks:
    """Which of how many ranks this process is; alone, it changes nothing."""

    rank: int = 0
    size: int = 1

    def share_size(self, batch_size: int) -> int:
        """Return how many images of a batch are this rank's; ranks differ by one at most."""
        first, last = self._bounds(batch_size)
        return last - first

    def take_shares(self, values: Tensor, batch_size: int) -> Tensor:
        """Return this rank's share of every batch, of values (S · B,) for S batches of B images."""
        if self.size == 1:
            return values
        first, last = self._bounds(batch_size)
        return values.view(-1, batch_size)[:, first:last].reshape(-1)

    def prepare(self, model: Classifier) -> None:
        """Let batch normalisation on GPUs use the statistics of the whole batch."""
        if self.size > 1 and model.mean.device.type == "cuda":
            model.net = convert_sync_batchnorm(model.net)

    def spread(self, modules: nn.ModuleList, compute_terms: _Terms, *, batch_size: int) -> _Terms:
        """Return what computes the terms, and whose backward pass averages gradients over ranks.

        Args:
            modules: what is trained.
            compute_terms: returns scalars by name, each a mean over the images it is given.
            batch_size: how many images all ranks take together in a step.
        """
        if self.size == 1:
            return compute_terms
        weight = self.share_size(batch_size) * self.size / batch_size
        step = _Step(modules, compute_terms, weight=weight)
        # Some weights of one position have two ways to be laid out, which cost nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        # Static: the same parameters have a gradient in every step, and some may have none.
        spread = DistributedDataParallel(step, static_graph=True)
        spread.broadcast_buffers = False  # the argument has another name in newer versions of torch
        return spread

    def mean(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean of terms over the ranks; a GPU does it without the host waiting.

        All ranks get the same, so that all stop in the same step when one is not finite.
        """
        if self.size == 1:
            return terms
        values = torch.stack([value.detach().float() for value in terms.values()])
        dist.all_reduce(values)
        return dict(zip(terms, (values / self.size).unbind(), strict=True))

    def from_first(self, make: Callable[[], _Value]) -> _Value:
        """Return what rank 0 makes; the others wait for it."""
        if self.size == 1:
            return make()
        made: list[Any] = [make() if self.rank == 0 else None]
        dist.broadcast_object_list(made)
        return made[0]

    def draw_apart(self, seed: int, *, epoch: int) -> None:
        """Let dropout draw other numbers on every rank; rank 0's generator is left alone."""
        if self.rank:
            digest = hashlib.sha256(f"{seed} {epoch} {self.rank}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def _bounds(self, batch_size: int) -> tuple[int, int]:
        return self.rank * batch_size // self.size, (self.rank + 1) * batch_size // self.size


ALONE = Ranks()
"""A training in one process, on one device."""


def join_ranks(rank: int, size: int, device: torch.device) -> Ranks:
    """Connect a process with the other ranks, which torch's launcher has started with it."""
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    return Ranks(rank=rank, size=size)


def leave_ranks(ranks: Ranks) -> None:
    """Take leave of the others at the end of a training."""
    if ranks.size > 1:
        dist.destroy_process_group()


class _Step(nn.Module):
    """The terms of a rank's share, so weighted that their mean over ranks is the batch's."""

    def __init__(self, modules: nn.ModuleList, compute_terms: _Terms, *, weight: float) -> None:
        super().__init__()
        self.modules_trained = modules
        self.compute_terms = compute_terms
        self.weight = weight

    def forward(self, *batch: Any) -> dict[str, Tensor]:
        """Return the weighted terms of this rank's images."""
        return {name: self.weight * term for name, term in self.compute_terms(*batch).items()}
