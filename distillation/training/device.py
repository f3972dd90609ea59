"""Choose the device once, by name; everything deeper is handed a `torch.device`."""

from __future__ import annotations

import torch

from distillation.base.errors import DistillationError

DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")


class DeviceError(DistillationError):
    """A device is unknown or not available."""


def select_device(name: str) -> torch.device:
    """Turn a device's name into a device that is there.

    Args:
        name: `auto` (CUDA where there is one, else the CPU), or a device by torch's name, such
            as `cpu`, `cuda` or `cuda:1`.

    Raises:
        DeviceError: the name is unknown or the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICE_NAMES:
            raise DeviceError(f"{device.type} devices are not supported")
        torch.zeros(1, device=device)
    except (DeviceError, RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeviceError(
            f"device: got {name!r}, which cannot be used here ({reason}); allowed: "
            f"{', '.join(DEVICE_NAMES)}"
        ) from error
    return device
