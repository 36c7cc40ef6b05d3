"""Where torch computes: the devices by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: What a device may be called.
DEVICES = ("auto", "cpu", "cuda", "mps")


class DeviceError(ValueError):
    """A device, backend or precision that this machine or installation does not have."""


def choose_device(device: str) -> torch.device:
    """``auto`` (a CUDA GPU where there is one, else the CPU), ``cpu``, ``cuda`` or ``mps`` (Apple's) to a device.

    Raises:
        DeviceError: unknown, or not on this machine.
    """
    import torch

    if device not in DEVICES:
        raise DeviceError(f"device is {device!r}; expected one of {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device was found on this machine; use --device cpu or auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("no Apple GPU (mps) was found on this machine; use --device cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
