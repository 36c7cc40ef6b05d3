"""Masks: what is white, soft edges, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fststyle.images import ImageError, feathered, read_mask


@pytest.fixture
def shape() -> np.ndarray:
    """A mask, uint8 (40, 60): white in the upper left, grey below it."""
    mask = np.zeros((40, 60), np.uint8)
    mask[:20, :30], mask[20:, :30] = 255, 100
    return mask


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp", "gif", "pgm"])
def test_any_grey_picture_is_a_mask(shape: np.ndarray, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"mask.{ending}"
    Image.fromarray(shape).save(path, **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(read_mask(path), shape)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "LA"])
def test_modes_give_one_mask(mode: str, tmp_path: Path) -> None:
    shape = np.zeros((40, 60), np.uint8)
    shape[:, 30:] = 255
    picture = Image.fromarray(shape)
    if mode == "I;16":
        picture = Image.fromarray(shape.astype(np.uint16) * 257)
    else:
        picture = picture.convert("L").convert("RGB" if mode in ("RGBA", "CMYK") else "L").convert(mode)
    path = tmp_path / ("mask.tif" if mode == "CMYK" else "mask.png")
    picture.save(path)
    away = np.abs(read_mask(path).astype(int) - shape)
    assert away.max() <= (60 if mode == "CMYK" else 0)  # ink has no black as deep


def test_colours_give_their_luminance(tmp_path: Path) -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:, :10, 0], picture[:, 10:20, 1], picture[:, 20:, 2] = 255, 255, 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png")[0, ::10].tolist() == [76, 150, 29]


def test_alpha_that_varies_is_the_mask_and_other_alpha_is_not(shape: np.ndarray, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(np.dstack([noise, shape])).save(tmp_path / "varies.png")
    assert np.array_equal(read_mask(tmp_path / "varies.png"), shape)
    grey = np.dstack([shape] * 3)
    for alpha in (255, 90):
        Image.fromarray(np.dstack([grey, np.full_like(shape, alpha)])).save(tmp_path / "even.png")
        assert np.array_equal(read_mask(tmp_path / "even.png"), shape)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_mask_is_as_seen(shape: np.ndarray, orientation: int, tmp_path: Path) -> None:
    stored = (
        Image.fromarray(shape).transpose(
            {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
        )
        if orientation > 1
        else Image.fromarray(shape)
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "mask.png", exif=exif)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), shape)


def test_a_mask_is_brought_to_the_size_of_the_picture(shape: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(shape).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 120).shape == (80, 120)


@pytest.mark.parametrize(
    ("level", "found"), [(0, "wholly black"), (255, "wholly white"), (90, r"of one grey \(90 of 255\)")]
)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_mask_of_one_value_is_refused(level: int, found: str, mode: str, tmp_path: Path) -> None:
    Image.new("L", (40, 30), level).convert(mode).save(tmp_path / "mask.png")
    with pytest.raises(ImageError, match=rf"mask\.png: is {found}; expected a mask that is white in one part"):
        read_mask(tmp_path / "mask.png")


def test_a_mask_of_which_nothing_is_seen_is_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 30), (255, 0, 0, 0)).save(tmp_path / "mask.png")
    with pytest.raises(ImageError, match="wholly transparent"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("feather", [4, 10, 40])
def test_edges_are_soft_over_so_many_pixels_to_each_side(feather: float) -> None:
    mask = np.zeros((20, 400), np.uint8)
    mask[:, 200:] = 255
    row = feathered(mask, feather)[10].astype(int)
    assert (np.diff(row) >= 0).all()  # no ringing
    assert np.diff(row).max() <= 1.3 * 255 / feather / np.sqrt(np.pi / 2) + 1  # the Gaussian's slope: no step
    assert abs(row[199] + row[200] - 255) <= 2  # the edge stays where it is
    assert row[200 - feather] <= 0.05 * 255 <= 0.95 * 255 <= row[199 + feather]
    assert row[: 200 - 2 * feather].tolist() == [0] * (200 - 2 * feather)
    assert row[200 + 2 * feather :].tolist() == [255] * (200 - 2 * feather)


def test_by_default_edges_are_as_soft_at_any_size() -> None:
    for side in (200, 800):
        mask = np.zeros((side, side), np.uint8)
        mask[:, side // 2 :] = 255
        soft = feathered(mask)
        assert np.array_equal(soft, feathered(mask, 0.01 * side))
        assert 0 < np.mean((soft > 12) & (soft < 243)) < 0.025
    assert feathered(mask, 0) is mask


@pytest.mark.parametrize("feather", [-1, 61, float("nan"), float("inf")])
def test_a_feather_that_makes_no_sense_is_refused(shape: np.ndarray, feather: float) -> None:
    with pytest.raises(ValueError, match="expected a number of pixels from 0 to 60"):
        feathered(shape, feather)
