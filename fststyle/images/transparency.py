"""Hidden pixels, those of alpha 0: their colours are nobody's to see and say nothing about the picture.

Networks see every pixel, and instance norm takes its moments over all of them. So hidden pixels are given visible
colours as soon as a picture is decoded, before anything resizes or looks at it: what can be seen is mirrored into what
cannot. Each hidden pixel is a copy of a visible one, so moments and Gram matrices stay near those of the visible part
(nearer than with a mean or a smooth colour), and no colour is added that the picture does not have.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from fststyle.images.arrays import Rows, top_level
from fststyle.images.pillow import ImageError, open_picture

#: Rows that are looked at at once.
_BAND = 256
#: Rows are mirrored up and down that have at least this share of the fullest one's visible pixels: of the values
#: tried, that gave results nearest to moments of the visible pixels alone.
_FULL = 0.5


def fill_hidden(read: Rows, write: Callable[[int, np.ndarray], object], height: int, name: str = "the picture") -> None:
    """Give the pixels of alpha 0 the colours of visible pixels of the same picture.

    A hidden pixel shows the pixel of its row that is mirrored about the nearest visible ones; in a row that has few of
    them, or none, it shows the same column of a fuller row, likewise mirrored. Hidden colours are never read. Of pixels
    that are more than half opaque colours are taken; where there are none, of any visible ones. At most ``_BAND`` rows
    are in memory, and whoever holds the picture, in memory or in a file, gets the same bits.

    Args:
        read: rows of the picture from one to before another: uint8 or uint16 (rows, W, 4).
        write: called with a row's number and what is to stand there, (1, W, 4).
        height: of the picture.
        name: of the picture, for the message.

    Raises:
        ImageError: no pixel is visible.
    """
    counts = []
    for top in range(0, height, _BAND):
        alpha = read(top, min(height, top + _BAND))[..., 3]
        counts.append(np.stack([np.count_nonzero(alpha > least, axis=1) for least in (0, top_level(alpha) // 2)], 1))
    width, (visible, opaque) = alpha.shape[1], np.concatenate(counts).T
    if not visible.any():
        raise ImageError(f"{name}: is wholly transparent; expected a picture of which something can be seen")
    least, usable = (top_level(alpha) // 2, opaque) if opaque.any() else (0, visible)
    full = usable >= max(1, _FULL * usable.max())
    rows = _mirrored(full, np.arange(height))
    for place in map(int, np.flatnonzero(visible < width)):
        source = int(rows[place])
        row, shown = read(place, place + 1).copy(), read(source, source + 1)[0]
        hidden = np.flatnonzero(row[0, :, 3] == 0)
        row[0, hidden, :3] = shown[_mirrored(shown[:, 3] > least, hidden), :3]
        write(place, row)


def _mirrored(usable: np.ndarray, places: np.ndarray) -> np.ndarray:
    """For places of a line the usable ones to show there: itself, or the mirror image about the nearest.

    The usable places are taken as a sequence without gaps, reflected as often as need be.
    """
    known = np.flatnonzero(usable)
    after = np.cumsum(usable)[places]  # how many are at or before a place
    left = np.where(after > 0, places - known[np.maximum(after - 1, 0)], len(usable))
    right = np.where(after < len(known), known[np.minimum(after, len(known) - 1)] - places, len(usable))
    turned = np.where(left <= right, after - np.maximum(left, 1), after - 1 + right) % (2 * len(known))
    return known[np.minimum(turned, 2 * len(known) - 1 - turned)]


def filled(pixels: np.ndarray, name: str = "the picture") -> np.ndarray:
    """Decoded pixels (H, W, 4) with ``fill_hidden``; as they are where nothing is hidden.

    Raises:
        ImageError: no pixel is visible.
    """
    if pixels[..., 3].all():
        return pixels
    pixels = pixels.copy()

    def write(top: int, rows: np.ndarray) -> None:
        pixels[top : top + len(rows)] = rows

    fill_hidden(lambda top, end: pixels[top:end], write, len(pixels), name)
    return pixels


def visible_box(alpha: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold everything visible of alpha (H, W); something is."""
    rows, columns = (np.flatnonzero((alpha > 0).any(axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def open_visible(source: str | os.PathLike[str] | bytes, *, draft: int | None = None) -> Image.Image:
    """As ``open_picture``, but always mode RGB: what is hidden is filled, and alpha is dropped.

    Raises:
        ImageError: as ``open_picture``; no pixel is visible.
    """
    picture = open_picture(source, draft=draft)
    if picture.mode == "RGB":
        return picture
    pixels = filled(np.asarray(picture), "the picture" if isinstance(source, bytes) else str(source))
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
