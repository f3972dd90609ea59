"""How arithmetic is run: device, precision, compilation. Decided once, handed down.

The decision depends on the device and the parameters alone, never on a measurement. On a CPU the
same call computes the same bits twice; on a GPU cuDNN and the compiler choose kernels by timing
them.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sysconfig
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch

from distillation.training.device import DeviceError, select_device
from distillation.training.parallel import ALONE, Ranks

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how models are run."""

    device: torch.device
    precision: str = "fp32"
    """`fp32`, without TF32, or `bf16`: autocast of forward passes; the rest is float32."""
    compiles: bool = False
    """Whether the training step goes through torch.compile, if it can."""
    ranks: Ranks = ALONE
    """The processes that share a training, each on its device."""

    def compute_seconds(self) -> float:
        """Return the time that cores or GPUs have worked, from some moment on.

        Of cores it is the time of all that ran this process, which hardly depends on what else
        ran. GPUs are taken to work all the time: with several trainings on one, each counts it.
        """
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        return clock() * self.ranks.size

    @property
    def compute_unit(self) -> str:
        """Return what `compute_seconds` are the time of: `core` or `GPU`."""
        return "core" if self.device.type == "cpu" else "GPU"

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context forward passes run in."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    @property
    def compiles_steps(self) -> bool:
        """Return whether steps are compiled, which those that several GPUs share are not.

        What GPUs tell each other within a step is no part of a CUDA graph, and breaks the function
        at every batch normalisation (pytorch/pytorch#161302).
        """
        return self.compiles and (self.device.type == "cpu" or self.ranks.size == 1)

    def compile(self, function: _Function) -> _Function:
        """Compile a function of tensors for fixed shapes, where this runtime compiles.

        On CUDA with CUDA graphs (`reduce-overhead`): the student's many small kernels are
        started as one. The outputs of a call are valid until the next.
        """
        if not self.compiles_steps:
            return function
        mode = "reduce-overhead" if self.device.type == "cuda" else None
        return torch.compile(function, dynamic=False, mode=mode)  # type: ignore[return-value]


CPU = Runtime(device=torch.device("cpu"))
"""Plain float32 on the CPU."""


def make_runtime(
    *, precision: str = "auto", compiles: str = "auto", device_name: str = "auto"
) -> Runtime:
    """Decide how to run from what was asked for and the device.

    `auto` means bf16 and compilation on CUDA devices, and neither on the CPU, where both were
    measured to be slower or to pay too late (docs/performance.md).

    Args:
        precision: `auto`, `fp32` or `bf16`.
        compiles: `auto`, `true` or `false`.
        device_name: as `select_device` takes it.

    Raises:
        DeviceError: the device is not there, cannot compute in bf16, or lacks what compiles for it.
    """
    device = select_device(device_name)
    is_cuda = device.type == "cuda"
    has_bf16 = _has_bf16(device)
    if precision == "bf16" and not has_bf16:
        raise DeviceError(f"precision: got 'bf16', which {device} has not; allowed: auto or fp32")
    if is_cuda:
        torch.backends.cudnn.benchmark = True  # every batch has the same shape
        if device.index is not None:
            torch.cuda.set_device(device)  # for what goes to the current one: pinned memory, graphs
    uses_bf16 = precision == "bf16" or (precision == "auto" and is_cuda and has_bf16)
    if is_cuda:
        # Muon and some losses leave bf16. NVIDIA's containers set TF32, of 10 bits, as the default.
        torch.set_float32_matmul_precision("highest")
    if is_cuda and not uses_bf16:
        torch.backends.cudnn.allow_tf32 = False  # torch's default for convolutions
    has_to_compile = compiles == "true" or (compiles == "auto" and is_cuda)
    if has_to_compile:
        _check_compiler(is_cuda=is_cuda)
    return Runtime(
        device=device, precision="bf16" if uses_bf16 else "fp32", compiles=has_to_compile
    )


def _check_compiler(*, is_cuda: bool) -> None:
    """Refuse to compile without what Triton, or on the CPU torch, builds its kernels with."""
    missing = []
    if is_cuda and not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        missing.append("a C compiler (Debian, Ubuntu: gcc)")
    if not is_cuda and not (os.environ.get("CXX") or shutil.which("g++")):
        missing.append("a C++ compiler (Debian, Ubuntu: g++)")
    if not Path(sysconfig.get_path("include", "posix_prefix"), "Python.h").is_file():
        missing.append("Python's headers (Debian, Ubuntu: python3-dev)")
    if missing:
        raise DeviceError(
            f"compile: torch.compile needs {' and '.join(missing)}, not found here; install what "
            "is missing, or set compile to false"
        )


def _has_bf16(device: torch.device) -> bool:
    """Return whether a device computes in bf16 itself; emulated, it is slower than float32."""
    if device.type != "cuda":
        return device.type == "cpu"
    return torch.cuda.is_bf16_supported(including_emulation=False)
