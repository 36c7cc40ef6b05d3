"""Stylizer: a style, loaded once, applied to any picture in one forward pass."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from fststyle.images import check_size
from fststyle.networks.blocks import reflection_pad
from fststyle.networks.checkpoint import find_checkpoint, load_checkpoint


class DeviceError(ValueError):
    """A device that this machine does not have."""


class Stylizer:
    """``stylizer(image) -> image``, of the same size.

    Args:
        network: image in, image out; put into evaluation mode.
        record: the checkpoint's, for those who ask.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.

    Raises:
        DeviceError: ``cuda`` on a machine without.
    """

    def __init__(self, network: nn.Module, record: dict[str, Any] | None = None, device: str = "auto") -> None:
        self.device = choose_device(device)
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.record = record or {}

    @classmethod
    def from_checkpoint(cls, name_or_path: str | os.PathLike[str], device: str = "auto") -> Stylizer:
        """Load a shipped style by name, or a checkpoint file.

        Raises:
            CheckpointError: unknown name (the message lists the known ones), no or no sound checkpoint.
        """
        chosen = choose_device(device)
        checkpoint = load_checkpoint(find_checkpoint(name_or_path, "style"), "style")
        return cls(checkpoint.network, checkpoint.record, chosen.type)

    @torch.inference_mode()
    def __call__(self, image: Tensor, median: bool = False) -> Tensor:
        """Stylise.

        Args:
            image: float (B, 3, H, W), RGB in [0, 1], H and W ≥ 16, on any device.
            median: filter the result by ``median_filter``.

        Returns:
            float32 (B, 3, H, W) in [0, 1], on the image's device.

        Raises:
            ValueError: another shape, or a smaller picture.
        """
        check_size(image)
        inputs = image.to(self.device, torch.float32).contiguous(memory_format=torch.channels_last)
        output: Tensor = self.network(inputs).clamp(0, 1)
        if median:
            output = median_filter(output)
        return output.to(image.device)


def median_filter(image: Tensor) -> Tensor:
    """3×3 median of each channel, borders reflected: what Johnson's code applies to its results.

    Args:
        image: (B, C, H, W).
    """
    height, width = image.shape[-2:]
    padded = reflection_pad(image, 1, 1, 1, 1)
    shifted = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.stack(shifted).median(dim=0).values


def choose_device(device: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` to a device.

    Raises:
        DeviceError: unknown, or not on this machine.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device is {device!r}; expected one of auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device was found on this machine; use --device cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
