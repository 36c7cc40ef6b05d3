"""Lightness that varies where a photograph is even, so that a network makes strokes there too.

A network draws where a photograph has edges or texture. One that is trained to be steady in videos leaves a clear sky
or a wall nearly empty, while a painting has strokes everywhere. Texture networks are given noise to make texture of
(Ulyanov et al. 2016); here noise is added to the photograph, in its even areas alone. It flows: cells that are longer
than wide, displaced by coarser noise ("An image synthesizer", Perlin 1985, with a displaced domain), so that strokes
follow curves.

What a pixel gets depends on its place and on the pixels at most ``HALO`` away, so that strips of a large picture give
what the whole picture gives. Pictures are arrays (H, W, 3), uint8 or uint16; no torch.
"""

from __future__ import annotations

import functools

import numpy as np

from fststyle.images import to_levels, top_level
from fststyle.images.arrays import YCBCR, Rows
from fststyle.inference.options import surroundings
from fststyle.octaves import Variation

#: Pixels around one, each way, that decide what it gets.
HALO = 128
#: Pixels, each way, that have one value of the noise; between them it is interpolated.
_STEP = 2
#: Standard deviation of lightness around a pixel at which it gets 1/e of the noise.
_EVEN = 0.04
#: Pixels: how long the noise's cells are, and how far they are displaced; over how many of their widths.
_ALONG, _BEND, _SWIRL = 50.0, 150.0, 16
#: Standard deviations of the noise that there is room for in what is white or black.
_ROOM = 1.5
#: Numbers of the noise, each way, after which it is repeated; standard deviation of the sum of its two octaves.
_TABLE, _DEVIATION = 128, 0.5


def varied(rgb: np.ndarray, by: Variation) -> np.ndarray:
    """A picture whose even areas vary in lightness, uint8 or uint16 (H, W, 3)."""
    return _varied(rgb, by, 0) if by.amount else rgb


def varied_rows(read: Rows, height: int, by: Variation) -> Rows:
    """The same of a picture that is read row by row."""

    def rows(top: int, bottom: int) -> np.ndarray:
        first = max(0, (top - HALO) // _STEP * _STEP)
        return _varied(read(first, min(height, bottom + HALO)), by, first)[top - first : bottom - first]

    return rows if by.amount else read


def _varied(rgb: np.ndarray, by: Variation, top: int) -> np.ndarray:
    """Rows of a picture from ``top`` on, a multiple of ``_STEP``; those near the first and last lack their halo."""
    added = added_light(rgb.astype(np.float32) @ YCBCR[0] / top_level(rgb), by, top)
    return to_levels(rgb + top_level(rgb) * added[..., None], rgb.dtype)


def added_light(light: np.ndarray, by: Variation, top: int = 0) -> np.ndarray:
    """What all channels of a picture get, float32 (H, W), of its lightness, float32 (H, W), in [0, 1]."""
    height, width = light.shape
    light = np.pad(light, [(0, -side % _STEP) for side in (height, width)], mode="edge")
    parts = [light[row::_STEP, column::_STEP] for row in range(_STEP) for column in range(_STEP)]
    moments = np.stack([sum(part**power for part in parts) / len(parts) for power in (1, 2)], -1)  # type: ignore[arg-type]
    (lines, columns, _), room = moments.shape, _ROOM * by.amount
    moved = np.clip(moments[..., 0], room, 1 - room) - moments[..., 0]
    moments = surroundings(surroundings(moments, HALO // 8), HALO // 8)
    variance = np.maximum(moments[..., 1:] - moments[..., :1] ** 2, 0)
    even = surroundings(np.exp(-variance / _EVEN**2), HALO // 8)
    added = even[..., 0] * (moved + by.amount * _noise(top // _STEP, lines, columns, by.width))
    for axis, side in enumerate((height, width)):
        added = _enlarged(added, side, axis)
    return added.astype(np.float32, copy=False)


def _enlarged(values: np.ndarray, side: int, axis: int) -> np.ndarray:
    """Rows, or columns, ``_STEP`` times as many, interpolated linearly, and of them the first ``side``."""
    at = np.clip((np.arange(side) + 0.5) / _STEP - 0.5, 0, values.shape[axis] - 1)
    before = at.astype(np.int64)
    after = np.minimum(before + 1, values.shape[axis] - 1)
    share = (at - before).astype(np.float32)
    share = share[:, None] if axis == 0 else share
    return values.take(before, axis) * (1 - share) + values.take(after, axis) * share


def _noise(top: int, lines: int, columns: int, width: float) -> np.ndarray:
    """The noise (lines, columns) at every ``_STEP``-th pixel, from line ``top`` on; of standard deviation 1."""
    swirl = _SWIRL * width
    y = ((np.arange(top, top + lines, dtype=np.float32) + 0.5) * _STEP)[:, None]
    x = ((np.arange(columns, dtype=np.float32) + 0.5) * _STEP)[None]
    moved_x, moved_y = (axis + _BEND * _smooth(each, x / swirl, y / swirl) for each, axis in enumerate((x, y)))
    fine = _smooth(2, moved_x / _ALONG, moved_y / width)
    turned_x, turned_y = 0.8 * moved_x + 0.6 * moved_y, 0.8 * moved_y - 0.6 * moved_x  # no borders of cells meet
    coarse = _smooth(3, turned_x / (2 * _ALONG), turned_y / (2 * width))
    return (fine + 0.5 * coarse) / np.float32(_DEVIATION)


def _smooth(number: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Value noise with cells of 1 × 1, in [-1, 1], at places that are broadcast; one noise for each number."""
    table = _numbers()[number]
    left, above = (np.floor(place).astype(np.int64) for place in (x, y))
    across, down = (share**3 * (share * (6 * share - 15) + 10) for share in (x - left, y - above))
    left, right, above, below = (place % _TABLE for place in (left, left + 1, above, above + 1))
    upper = table[above, left] * (1 - across) + table[above, right] * across
    lower = table[below, left] * (1 - across) + table[below, right] * across
    return upper * (1 - down) + lower * down


@functools.cache
def _numbers() -> np.ndarray:
    """Numbers in [-1, 1] without order, the same on every machine: float32 (4, _TABLE, _TABLE)."""
    number, line, column = np.indices((4, _TABLE, _TABLE), np.uint32)
    mixed = number * np.uint32(2654435761) + line * np.uint32(668265263) + column * np.uint32(374761393)
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    return (mixed / np.float64(2**31) - 1).astype(np.float32)
