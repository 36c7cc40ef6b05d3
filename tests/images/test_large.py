"""Pictures of 16 bits, and those that are never whole in memory."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fststyle.images import ImageError, large, read_header, read_picture, save_image
from fststyle.images.tiff import add_exif

pytestmark = pytest.mark.skipif(not large.available(), reason="libvips is not there: pip install 'fststyle[large]'")


@pytest.fixture
def deep() -> np.ndarray:
    """uint16 (40, 56, 3), different after every turn, with low bits that 8 bits lose."""
    y, x = np.mgrid[0:40, 0:56]
    return np.stack([1000 * x + y, 1500 * y + x, 300 * x + 500 * y + 7], axis=2).astype(np.uint16)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_come_back_bit_for_bit(tmp_path: Path, deep: np.ndarray, ending: str) -> None:
    path, alpha = tmp_path / f"a.{ending}", deep[..., 0].clip(257)  # nothing is hidden
    save_image(deep, path, alpha)
    assert read_header(path).bits == 16
    picture = read_picture(path, keep_16bit=True)
    assert picture.rgb.dtype == np.uint16
    assert np.array_equal(picture.rgb, deep)
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, alpha)
    plain = read_picture(path)  # who did not ask gets 8
    assert plain.rgb.dtype == np.uint8
    assert np.abs(plain.rgb.astype(int) - deep / 257).max() <= 1


def test_sixteen_bits_become_eight_where_the_format_has_no_more(tmp_path: Path, deep: np.ndarray) -> None:
    for name in ("a.jpg", "a.webp", "a.bmp"):
        save_image(deep, tmp_path / name)
        read = read_picture(tmp_path / name, keep_16bit=True).rgb
        assert read.dtype == np.uint8
        assert np.abs(read.astype(int) - deep / 257).mean() < 3


def test_without_libvips_sixteen_bits_are_read_and_written_as_eight(
    tmp_path: Path, deep: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image(deep, tmp_path / "a.png")
    monkeypatch.setattr(large, "available", lambda: False)
    assert read_picture(tmp_path / "a.png", keep_16bit=True).rgb.dtype == np.uint8
    save_image(deep, tmp_path / "b.png")
    assert read_header(tmp_path / "b.png").bits == 8


def test_a_library_that_is_missing_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pyvips":
            raise OSError("cannot load library 'libvips.so.42'")
        return real(name, *rest)

    large.available.cache_clear()
    large.vips.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    assert not large.available()
    monkeypatch.undo()
    large.available.cache_clear()
    assert large.available()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_what_is_decoded_into_scratch_is_what_is_read_whole(
    tmp_path: Path, orientation: int, ending: str, astronaut: np.ndarray
) -> None:
    path, exif = tmp_path / f"a.{ending}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(astronaut[:60, :44]).save(path, exif=exif)
    header = read_header(path)
    picture = read_picture(path).rgb
    assert (header.height, header.width) == picture.shape[:2]
    scratch = large.decoded(path, header, tmp_path)
    assert np.abs(scratch.read(0, header.height).astype(int) - picture).max() <= (0 if ending in ("png", "tif") else 2)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_every_mode_is_decoded_to_rgb(tmp_path: Path, mode: str, astronaut: np.ndarray) -> None:
    picture = Image.fromarray(astronaut[:40, :48])
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    elif mode == "RGBA":
        picture.putalpha(100)
    else:
        picture = picture.convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(path)
    scratch = large.decoded(path, read_header(path), tmp_path)
    assert scratch.shape == (40, 48, 4 if mode in ("RGBA", "LA") else 3)
    levels = scratch.read(0, 40)[..., :3] / (257 if mode == "I;16" else 1)
    assert np.abs(levels - read_picture(path).rgb).max() <= 1


@pytest.mark.parametrize("kind", ["tif", "jpg", "deep.tif"])
def test_inks_become_what_pillow_makes_of_them_band_by_band(
    tmp_path: Path, kind: str, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, picture = tmp_path / f"a.{kind}", Image.fromarray(astronaut[:300, :40]).convert("CMYK")
    if kind == "deep.tif":
        inks = np.asarray(picture).astype(np.uint16) << 8
        tifffile.imwrite(path, inks, photometric="separated")
    else:
        picture.save(path)
    whole = read_picture(path, keep_16bit=True).rgb
    assert whole.dtype == np.uint8
    monkeypatch.setattr(large, "open_picture", None)  # nothing is decoded whole
    scratch = large.decoded(path, read_header(path), tmp_path)
    assert np.abs(scratch.read(0, 300).astype(int) - whole).max() <= (0 if kind != "jpg" else 2)


@pytest.mark.parametrize("top", [1.0, 200.0, 60000.0])
def test_floating_point_grey_is_decoded_by_its_range(tmp_path: Path, top: float) -> None:
    values = np.linspace(0, top, 1600, dtype=np.float32).reshape(40, 40)
    Image.fromarray(values).save(tmp_path / "a.tif")
    white = {1.0: 1, 200.0: 255, 60000.0: 65535}[top]
    wanted = np.rint(values / white * 255)[..., None]
    scratch = large.decoded(tmp_path / "a.tif", read_header(tmp_path / "a.tif"), tmp_path)
    assert np.abs(read_picture(tmp_path / "a.tif").rgb - wanted).max() <= 1
    assert np.array_equal(scratch.read(0, 40), read_picture(tmp_path / "a.tif").rgb)


def test_a_format_that_libvips_does_not_read_goes_through_pillow(tmp_path: Path, astronaut: np.ndarray) -> None:
    Image.fromarray(astronaut[:60, :80]).save(tmp_path / "a.bmp")
    header = read_header(tmp_path / "a.bmp")
    scratch = large.decoded(tmp_path / "a.bmp", header, tmp_path, size=40)
    assert np.array_equal(scratch.read(0, 30), read_picture(tmp_path / "a.bmp", 40).rgb)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_a_damaged_file_is_refused_and_leaves_no_scratch(tmp_path: Path, ending: str, astronaut: np.ndarray) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(astronaut).save(path)
    header, whole = read_header(path), path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="is damaged") as caught:
        large.decoded(path, header, tmp_path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("big", [False, True])
def test_exif_is_put_into_tiff(tmp_path: Path, deep: np.ndarray, big: bool) -> None:
    exif, path = Image.Exif(), tmp_path / "a.tif"
    exif[0x010F], exif[0x011A] = "A maker with a name", 300.0
    exif.get_ifd(0x8769).update({0x9003: "2020:01:01 00:00:00", 0x829A: 0.004})
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 9.5)})
    if big:
        large.vips().Image.new_from_array(deep).copy(interpretation="rgb16").tiffsave(
            str(path), tile=True, tile_width=16, tile_height=16, bigtiff=True
        )
        with path.open("r+b") as file:
            add_exif(file, exif.tobytes())
    else:
        save_image(deep, path, exif=exif.tobytes())
    assert path.read_bytes()[2] == (43 if big else 42)
    assert np.array_equal(read_picture(path, keep_16bit=True).rgb, deep)
    with Image.open(path) as written:
        found = written.getexif()
        assert found[0x010F] == "A maker with a name"
        assert found[0x011A] == 300
        assert found.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
        assert found.get_ifd(0x8769)[0x829A] == pytest.approx(1 / 250)
        assert [float(value) for value in found.get_ifd(0x8825)[2]] == [47, 22, 9.5]
    with tifffile.TiffFile(path) as other:
        page = other.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert page.tags["ExifTag"].value["DateTimeOriginal"] == "2020:01:01 00:00:00"
        assert page.tags["GPSTag"].value["GPSLatitudeRef"] == "N"
        assert [tag.code for tag in page.tags] == sorted(tag.code for tag in page.tags)


def test_a_format_has_a_longest_side(tmp_path: Path) -> None:
    large.check_writer("a.jpg", "JPEG", 65535, 10)
    with pytest.raises(ImageError, match="70000×10 pixels; JPEG takes at most 65535 a side"):
        large.check_writer("a.jpg", "JPEG", 10, 70000)
    with pytest.raises(ImageError, match=r"BMP is not written strip by strip; use one of \.jpg, \.png"):
        large.check_writer("a.bmp", "BMP", 10, 10)


def test_scratch_gives_back_what_was_put_in(tmp_path: Path) -> None:
    rows = np.arange(70, dtype=np.uint16).reshape(7, 5, 2)
    scratch = large.Scratch((7, 5, 2), np.uint16, tmp_path)
    scratch.write(3, rows[3:])
    scratch.write(0, rows[:3])
    assert np.array_equal(scratch.read(2, 5), rows[2:5])
    assert os.listdir(tmp_path) == []  # it has no name
    scratch.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        scratch.read(0, 1)


@pytest.mark.parametrize("options", [{}, {"quality": 100}, {"quality": 30}, {"subsampling": "4:2:2"}])
@pytest.mark.parametrize("alpha", [False, True])
def test_avif_is_one_picture_whole_and_by_rows(
    options: dict[str, Any], alpha: bool, tmp_path: Path, astronaut: np.ndarray
) -> None:
    """libvips enlarges its colours, which have half the size, otherwise than Pillow: by up to 16 of 255."""
    path, rgb = tmp_path / "a.avif", astronaut[:120, :200]
    pixels = np.dstack([rgb, np.full(rgb.shape[:2], 200, np.uint8)]) if alpha else rgb
    Image.fromarray(pixels).save(path, **options)
    stored = large.decoded(path, read_header(path), tmp_path).read(0, 120)
    assert np.array_equal(stored[..., :3], read_picture(path).rgb)
