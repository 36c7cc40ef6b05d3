"""A network applied from coarse to fine: ``fststyle.octaves`` for images, which training differentiates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fststyle.octaves import PHOTOGRAPH, halved, room_for


def in_octaves(network: Callable[[Tensor], Tensor], image: Tensor, octaves: int) -> Tensor:
    """The result of the last of several octaves.

    Args:
        network: (B, 3, H, W) to the same size, RGB in [0, 1].
        image: (B, 3, H, W), RGB in [0, 1].
        octaves: 1 is a single pass; as many are made as the picture has room for.
    """
    return coarse_to_fine(network, image, min(octaves, room_for(*image.shape[-2:])))


def coarse_to_fine(network: Callable[[Tensor], Tensor], image: Tensor, octaves: int) -> Tensor:
    """The same of a picture that is known to have room for them."""
    if octaves == 1:
        return network(image)
    height, width = image.shape[-2:]
    coarse = coarse_to_fine(network, resized(image, *halved(height, width)), octaves - 1)
    guide = resized(coarse, height, width).to(image)
    return network(PHOTOGRAPH * image + (1 - PHOTOGRAPH) * guide)


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """An image in [0, 1] (B, C, H, W) at another size, float32, by Lanczos as ``images.resize_pixels``."""
    with torch.autocast(image.device.type, enabled=False):
        down, across = (
            _lanczos(side, to, image.device) for side, to in zip(image.shape[-2:], (height, width), strict=True)
        )
        return (down @ (image.float() @ across.T).clamp(0, 1)).clamp(0, 1)


def _lanczos(side: int, to: int, device: torch.device) -> Tensor:
    """The weights (to, side) of the pixels of a line in those of another one."""
    step = side / to
    centres = (torch.arange(to, device=device, dtype=torch.float64) + 0.5) * step
    places = torch.arange(side, device=device, dtype=torch.float64) + 0.5
    wide: Any = torch.sym_max(1.0, step)
    distances = (places - centres[:, None]) / wide
    weights = torch.sinc(distances) * torch.sinc(distances / 3) * (distances.abs() < 3)
    return (weights / weights.sum(1, keepdim=True)).float()
