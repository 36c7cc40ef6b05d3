"""Files of encoder weights, as several tests write them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fststyle.encoders.pretrained import random_weights

WIDTHS = (4, 6, 8, 10, 12)


#: Where the convolutions stand in torchvision's ``features``.
PLACES = {
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "vgg19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}


def torchvision_state(architecture: str = "vgg16", seed: int = 0) -> dict[str, Tensor]:
    """A narrow network's state dict in torchvision's layout, with something of a classifier."""
    weights = random_weights(architecture, seed, WIDTHS)
    names = [key.removesuffix(".weight") for key in weights if key.startswith("conv") and key.endswith(".weight")]
    state = {"classifier.0.weight": torch.ones(2, 2), "classifier.0.bias": torch.ones(2)}
    for place, name in zip(PLACES[architecture], names, strict=True):
        state[f"features.{place}.weight"], state[f"features.{place}.bias"] = (
            weights[f"{name}.weight"],
            weights[f"{name}.bias"] + 0.1,
        )
    return state


def write(path: Path, architecture: str = "vgg16", seed: int = 0) -> Path:
    torch.save(torchvision_state(architecture, seed), path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def first_layer(state: dict[str, Tensor], image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """conv1_1 of an image that is normalised by hand."""
    x = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    return F.conv2d(x, state["features.0.weight"], state["features.0.bias"], padding=1)
