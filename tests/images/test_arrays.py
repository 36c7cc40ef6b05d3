"""Rows at another size are those of the whole picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fststyle.images import resize_pixels
from fststyle.images.arrays import resized_rows


@pytest.mark.parametrize("shape", [(700, 50, 3), (700, 50), (700, 50, 4)])
@pytest.mark.parametrize(("height", "width"), [(300, 20), (1400, 100), (33, 31), (701, 50)])
def test_rows_are_those_of_the_whole_picture(shape: tuple[int, ...], height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if shape[2:] == (4,):
        pixels[..., 3] = 255
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    rows = np.concatenate(list(resized_rows(lambda top, end: pixels[top:end], *shape[:2], height, width)))
    assert rows.shape == whole.shape
    assert np.abs(rows.astype(int) - whole).max() <= 1


def test_sixteen_bits_are_resized_as_eight_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    fine = resize_pixels(pixels.astype(np.uint16) * 257, 40, 30)
    assert fine.dtype == np.uint16
    assert np.abs(fine / 257 - resize_pixels(pixels, 40, 30)).max() < 2
    assert resize_pixels(pixels, 90, 70) is pixels
