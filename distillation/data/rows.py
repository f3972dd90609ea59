"""Rows of a large array, on the training's device: resident there, or streamed from a file.

What is small enough lies on the device whole: on the CPU as a memory map, of which processes that
train beside each other share one copy. What is larger is read row by row when it is asked for, so
that memory does not grow with the file; reading through file descriptors rather than a memory map
keeps the pages read out of the process's memory too.

Shapes: N rows, B of them asked for, … the shape of one row.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CPU_RESIDENT_BYTES = 2**30
_CUDA_RESIDENT_SHARE = 0.5  # of the memory that is free


class Indices(NamedTuple):
    """The same indices (B,) int64 on the host and on the device, so that neither waits."""

    host: Tensor
    device: Tensor


class Rows(Protocol):
    """An array of N rows that gives some of them on the device."""

    @property
    def is_streamed(self) -> bool:
        """Whether taking rows reads a file, which is worth doing ahead of need."""
        ...

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: Indices) -> Tensor:
        """Return rows (B, …) on the device, in the array's dtype."""
        ...


class ResidentRows:
    """Rows of a tensor that lies on the device."""

    is_streamed = False

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return tuple(self.values.shape[1:])

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: Indices) -> Tensor:
        """Return rows (B, …)."""
        return self.values.index_select(0, indices.device)


class StreamedRows:
    """Rows of an array in a file, copied to the device when they are taken."""

    is_streamed = True

    def __init__(self, array: np.memmap[Any, Any], device: torch.device) -> None:
        self._shape, self._dtype = array.shape, array.dtype
        self._row_bytes = int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize
        self._offset = array.offset
        self._device = device
        assert array.flags.c_contiguous
        assert array.filename is not None
        self._path = array.filename
        self._file = os.open(array.filename, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return self._shape[1:]

    def __len__(self) -> int:
        return int(self._shape[0])

    def take(self, indices: Indices) -> Tensor:
        """Return rows (B, …).

        Raises:
            IndexError: there is no such row.
            EOFError: the file has become shorter.
        """
        if int(indices.host.min()) < 0 or int(indices.host.max()) >= len(self):
            raise IndexError(f"{self._path}: got rows beyond 0 … {len(self) - 1}")
        is_cuda = self._device.type == "cuda"
        rows = torch.empty(
            (len(indices.host), *self._shape[1:]),
            dtype=torch.from_numpy(np.empty(0, self._dtype)).dtype,
            pin_memory=is_cuda,
        )
        buffer = rows.numpy().reshape(len(rows), -1).view(np.uint8)  # (B, bytes of a row)
        for position, index in enumerate(indices.host.tolist()):
            start = self._offset + index * self._row_bytes
            if os.preadv(self._file, [buffer[position]], start) != self._row_bytes:
                raise EOFError(f"{self._path}: row {index} cannot be read")
        return rows.to(self._device, non_blocking=True)


def make_rows(array: NDArray[Any], device: torch.device) -> Rows:
    """Put an array where its rows are quick to have.

    Args:
        array: (N, …); one that is mapped from a file may be streamed.
        device: where the rows are wanted.

    Returns:
        Resident rows when the array fits (1 GiB on the CPU, half of what is free on a CUDA
        device) or is in memory anyway; streamed rows otherwise.
    """
    # A view of a memory map is one too, but starts elsewhere than the map says: `base` tells.
    is_view = isinstance(array.base, np.memmap)
    if not isinstance(array, np.memmap) or array.filename is None or is_view:
        return ResidentRows(torch.tensor(array, device=device))
    if array.nbytes > _resident_bytes(device):
        return StreamedRows(array, device)
    return ResidentRows(_map(array).to(device))


def _map(array: np.memmap[Any, Any]) -> Tensor:
    """Return a mapped array as a tensor on the same pages of memory.

    The kernel has one copy of them for all processes that train on this file. torch wants an array
    that can be written to; what were written would be this process's own.
    """
    assert array.filename is not None
    return torch.from_numpy(
        np.memmap(array.filename, array.dtype, "c", offset=array.offset, shape=array.shape)
    )


def _resident_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return _CUDA_RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
    return _CPU_RESIDENT_BYTES
