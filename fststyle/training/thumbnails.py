"""A small picture of a style for a model file: what the network makes of a photograph that everyone has."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import nn

from fststyle.images import resize_longer_side, to_image, to_pixels
from fststyle.networks.octaves import in_octaves
from fststyle.training.generated import dead_leaves

#: Longer sides of the photograph that is stylised, and of the picture of it, pixels.
STYLISED, SIDE = 384, 144
#: Bytes of the picture, at most.
MOST = 10_000


def photograph(side: int = STYLISED) -> Image.Image:
    """The cup of coffee that comes with scikit-image, whose longer side is brought to ``side`` pixels; without that
    package, a picture made by code."""
    try:
        from skimage import data

        picture = Image.fromarray(np.asarray(data.coffee()))
    except Exception:  # no such package, or it would have to download the picture
        picture = Image.fromarray(dead_leaves(side, np.random.default_rng(0)))
    return resize_longer_side(picture, side)


@torch.no_grad()
def thumbnail(network: nn.Module, octaves: int = 1, device: torch.device | str = "cpu") -> bytes:
    """A photograph in a style, as JPEG of at most ``MOST`` bytes.

    Args:
        network: for one style, in evaluation mode.
        octaves: in which it is applied.
        device: that it is on.
    """
    weight = next(network.parameters())
    image = to_image(np.asarray(photograph())).to(device, weight.dtype)
    made = in_octaves(network, image, octaves)
    small = resize_longer_side(Image.fromarray(to_pixels(made)), SIDE)
    for quality in range(90, 0, -10):
        file = io.BytesIO()
        small.save(file, "JPEG", quality=quality)
        if file.tell() <= MOST:
            break
    return file.getvalue()
