"""Pictures at another size (Lanczos): whole, or row by row with the same result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from fststyle.images.arrays import to_levels

#: Rows of a picture from one to before another: uint8 or uint16 (rows, W) or (rows, W, C).
Rows = Callable[[int, int], np.ndarray]
#: Rows of a result that are made at once.
_BAND = 256
#: Of the Lanczos kernel, in pixels of the coarser picture.
_SUPPORT = 3


def resize_longer_side(picture: Image.Image, size: int) -> Image.Image:
    """Bring the longer side to ``size`` pixels, keeping the proportions."""
    return _scale(picture, size / max(picture.size))


def resize_shorter_side(picture: Image.Image, size: int) -> Image.Image:
    """Bring the shorter side to ``size`` pixels, keeping the proportions; quickly, where it is much longer."""
    return _scale(picture, size / min(picture.size), reducing_gap=3.0)


def _scale(picture: Image.Image, factor: float, reducing_gap: float | None = None) -> Image.Image:
    width, height = (max(1, round(side * factor)) for side in picture.size)
    if (width, height) == picture.size:
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=reducing_gap)


def resize_pixels(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Decoded pixels at another size.

    Args:
        pixels: uint8 or uint16 (H, W) or (H, W, C).
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    rows = resized_rows(lambda top, end: pixels[top:end], pixels.shape[0], pixels.shape[1], height, width)
    return np.concatenate(list(rows))


def reduce_pixels(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of ``factor`` pixels a side, fewer at the right and bottom: uint8 or uint16 (H, W, C)."""
    if factor == 1:
        return pixels
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).reduce(factor))
    channels = (Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(pixels, 2, 0))
    return to_levels(np.dstack([np.array(channel.reduce(factor)) for channel in channels]), pixels.dtype)


def resized_rows(read: Rows, height: float, width: float, to_height: int, to_width: int) -> Iterator[np.ndarray]:
    """The same of a picture (height, width) that is read row by row: bands of (to_height, to_width), top to bottom.

    A part of a pixel in ``height`` or ``width``: so much of the last row or column counts.
    """
    step = height / to_height
    reach = math.ceil(_SUPPORT * max(1.0, step)) + 1
    band = math.ceil(_BAND / max(1.0, step))  # what is read for it is about one band, too, beside the reach
    for top in range(0, to_height, band):
        bottom = min(to_height, top + band)
        first, last = max(0, math.floor(top * step) - reach), min(math.ceil(height), math.ceil(bottom * step) + reach)
        box = (0, top * step - first, width, min(bottom * step - first, last - first))
        yield _resized(read(first, last), (to_width, bottom - top), box)


def _resized(pixels: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    if pixels.dtype == np.uint8 and pixels.shape[2:] != (4,):  # of four channels Pillow would weigh three by the last
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        return np.asarray(picture.resize(size, Image.Resampling.LANCZOS, box))
    if pixels.ndim == 3:
        return np.dstack([_resized(channel, size, box) for channel in np.moveaxis(pixels, 2, 0)])
    picture = Image.fromarray(pixels.astype(np.float32))  # Pillow has no 16-bit channels
    return to_levels(np.array(picture.resize(size, Image.Resampling.LANCZOS, box)), pixels.dtype)
