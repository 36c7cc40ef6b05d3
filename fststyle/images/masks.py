"""Masks: which part of a picture something is done to, white where it is."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image, ImageFilter

from fststyle.images.arrays import YCBCR
from fststyle.images.files import read_picture
from fststyle.images.pillow import ImageError

#: Of the longer side: over so many pixels to each side an edge is softened, unless a number of pixels is given.
FEATHER = 0.01
_BAND = 256


def read_mask(path: str | os.PathLike[str], size: int | None = None, max_pixels: int | None = None) -> np.ndarray:
    """Read a picture file as a mask: uint8 (H, W), from 0, black, to 255, white.

    It is the luminance (ITU-R BT.601), or the alpha of a picture in which that varies: white where it is opaque.

    Args:
        path, size, max_pixels: as in ``read_picture``.

    Raises:
        ImageError: as ``read_picture``; a mask of one value, which tells nothing apart.
    """
    picture = read_picture(path, size, max_pixels=max_pixels)
    mask = picture.alpha
    if mask is None or mask.min() == mask.max():
        mask = np.empty(picture.rgb.shape[:2], np.uint8)
        for top in range(0, len(mask), _BAND):
            mask[top : top + _BAND] = np.rint(picture.rgb[top : top + _BAND].astype(np.float32) @ YCBCR[0])
    if mask.min() == mask.max():
        found = {0: "wholly black", 255: "wholly white"}.get(int(mask[0, 0]), f"of one grey ({mask[0, 0]} of 255)")
        raise ImageError(f"{path}: is {found}; expected a mask that is white in one part and black in another")
    return mask


def feathered(mask: np.ndarray, feather: float | None = None) -> np.ndarray:
    """A mask with soft edges, by a Gaussian of half of ``feather`` as its standard deviation.

    Args:
        mask: uint8 (H, W).
        feather: pixels to each side of an edge over which it is softened; None: ``FEATHER`` of the longer side.

    Raises:
        ValueError: a negative number, or more than the longer side.
    """
    longer = max(mask.shape)
    feather = FEATHER * longer if feather is None else feather
    if not 0 <= feather <= longer:
        raise ValueError(f"feather is {feather:g}; expected a number of pixels from 0 to {longer}, the longer side")
    return np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(feather / 2))) if feather else mask
