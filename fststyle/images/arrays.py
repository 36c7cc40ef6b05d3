"""The one image contract, and the way between it and decoded pictures.

Between modules an image is a float32 tensor of shape (B, 3, H, W), RGB, values in [0, 1]. A decoded picture is a
numpy array (H, W, 3), RGB, uint8 or uint16. Torch is imported only to make a tensor, so that whoever needs none
does not load it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

#: Shorter sides than this leave nothing to look at after two strides of 2 and are refused.
MIN_SIDE = 16
#: RGB to luma and two differences of colour, ITU-R BT.601.
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)


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
    sheet = np.full(
        (len(grid) * (height + gap) - gap, columns * (width + gap) - gap, 3),
        255,
        dtype=np.uint8,
    )
    for y, row in enumerate(grid):
        for x, picture in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            sheet[top : top + height, left : left + width] = picture
    return sheet
