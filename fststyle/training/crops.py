"""Crops of photographs, as tensors and in batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fststyle.images import ImageError, open_visible, resize_shorter_side, to_image
from fststyle.training.sources import from_utf8

#: A crop's width over its height lies between e^(-2 · 0.1) and e^(2 · 0.1).
ASPECT = 0.1

#: Smallest and largest side of a crop as a share of the picture's shorter side; None takes pixels as they are.
Scale = tuple[float, float] | None


def random_crop(picture: Image.Image, size: int, scale: Scale, rng: np.random.Generator) -> Image.Image:
    """A random part of a picture, mirrored half of the time, of ``size`` × ``size``.

    Args:
        picture: any size.
        size: in pixels.
        scale: the part's side, as a share of the picture's shorter side, between these two; None leaves
            pixels as they are (but enlarges a picture that is too small).
        rng: decides.
    """
    if scale is None:
        picture = _at_least(picture, size)
        left, top = (int(rng.integers(side - size + 1)) for side in picture.size)
        part = picture.crop((left, top, left + size, top + size))
        return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part
    share = rng.uniform(*scale)
    aspect = np.exp(rng.uniform(-ASPECT, ASPECT))
    width = min(picture.width, min(picture.size) * share * aspect)
    height = min(picture.height, min(picture.size) * share / aspect)
    left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
    box = (left, top, left + width, top + height)
    part = picture.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def centre_crop(picture: Image.Image, size: int, scale: Scale = (1.0, 1.0)) -> Image.Image:
    """The central square at ``size`` × ``size``, shorter side filled; or, without a scale, its pixels as they are."""
    picture = resize_shorter_side(picture, size) if scale else _at_least(picture, size)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def _at_least(picture: Image.Image, size: int) -> Image.Image:
    return picture if min(picture.size) >= size else resize_shorter_side(picture, size)


def decode(row: Mapping[str, Any], draft: int | None) -> Image.Image:
    value = row["image"]
    if value is None:
        raise ImageError("a row without a picture")
    name = from_utf8(value.get("path") or "a picture without a name")
    data = value.get("bytes")
    try:
        return open_visible(name if data is None else data, draft=draft)
    except ImageError as error:
        raise ImageError(str(error).replace("the picture:", f"{name}:", 1)) from None


def shortest_side(size: int, scale: Scale) -> int | None:
    """A picture of this shorter side still has ``size`` pixels along the smallest crop's shorter side."""
    return scale and math.ceil(size / scale[0] * math.exp(ASPECT))


def as_tensor(picture: Image.Image) -> Tensor:
    return to_image(np.asarray(picture.convert("RGB")))[0]


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples to a batch: ``image``, maybe ``style``, (B, 3, H, W); maybe ``which``, the number of the style that each
    is to be painted in, (B,); ``unreadable``: what was skipped on the way."""
    tensors = [key for key in ("image", "style", "which") if key in samples[0]]
    return {
        **{key: torch.stack([torch.as_tensor(sample[key]) for sample in samples]) for key in tensors},
        "unreadable": [message for sample in samples for message in sample["unreadable"]],
    }
