"""The one image contract, the way between it and decoded pictures, and pictures at another size.

Between modules an image is a float32 tensor of shape (B, 3, H, W), RGB, values in [0, 1]. A decoded picture is a
numpy array (H, W, 3), RGB, uint8 or uint16. Torch is imported only to make a tensor, so that whoever needs none
does not load it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

#: Shorter sides than this leave nothing to look at after two strides of 2 and are refused.
MIN_SIDE = 16
#: RGB to luma and two differences of colour, ITU-R BT.601.
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
#: Rows of a picture from one to before another: uint8 or uint16 (rows, W) or (rows, W, C).
Rows = Callable[[int, int], np.ndarray]
#: Rows of a result that are made at once.
_BAND = 256
#: Of the Lanczos kernel, in pixels of the coarser picture.
_SUPPORT = 3


def top_level(pixels: np.ndarray) -> int:
    """What white is: 255 in uint8, 65535 in uint16."""
    return int(np.iinfo(pixels.dtype).max)


def to_image(rgb: np.ndarray) -> Tensor:
    """uint8 or uint16 (H, W, 3) to an image, float32 (1, 3, H, W) in [0, 1]."""
    import torch

    levels = rgb.astype(np.int32) if rgb.dtype == np.uint16 else np.array(rgb)
    return torch.from_numpy(levels).permute(2, 0, 1)[None].float().div(top_level(rgb))


def to_pixels(image: Tensor, dtype: type[np.unsignedinteger] | np.dtype = np.uint8) -> np.ndarray:
    """An image (1, 3, H, W) or (3, H, W) to uint8 or uint16 (H, W, 3): clamped to [0, 1] and rounded."""
    if image.dim() == 4:
        if image.shape[0] != 1:
            raise ValueError(f"found a batch of {image.shape[0]} images; expected one")
        image = image[0]
    levels = image.detach().float().clamp(0, 1).mul(np.iinfo(dtype).max).round()
    whole = levels.byte() if dtype == np.uint8 else levels.int()
    return np.ascontiguousarray(whole.permute(1, 2, 0).cpu().numpy().astype(dtype, copy=False))


def to_levels(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floating-point levels, clipped and rounded to ``dtype``; the array given is used up."""
    return np.rint(np.clip(values, 0, np.iinfo(dtype).max, out=values), out=values).astype(dtype)


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Levels of 16 bits as levels of 8; levels of 8 as they are."""
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def check_size(image: Tensor | np.ndarray, smallest: int = MIN_SIDE) -> None:
    """Raise ``ValueError`` unless ``image`` is (B, 3, H, W) with H, W ≥ ``smallest``."""
    if len(image.shape) != 4 or image.shape[1] != 3:
        raise ValueError(f"found an image of shape {tuple(image.shape)}; expected (B, 3, H, W)")
    if min(image.shape[-2:]) < smallest:
        height, width = image.shape[-2:]
        raise ValueError(f"the picture is {width}×{height} pixels; expected at least {smallest}×{smallest}")


def contact_sheet(rows: Iterable[Iterable[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Pictures of one size, uint8 (H, W, 3), set in rows on white."""
    grid = [list(row) for row in rows]
    height, width = grid[0][0].shape[:2]
    columns = max(len(row) for row in grid)
    sheet = np.full((len(grid) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for y, row in enumerate(grid):
        for x, picture in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            sheet[top : top + height, left : left + width] = picture
    return sheet


# --- at another size (Lanczos), whole or row by row with the same result -----------------------------


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
