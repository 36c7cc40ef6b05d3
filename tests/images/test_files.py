"""Large pictures at a small size: decoded by rows or at a reduced scale, never held whole."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from fststyle.images import (
    ImageError,
    TooManyPixelsError,
    files,
    large,
    load_image,
    open_picture,
    pillow,
    read_header,
    read_picture,
)


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGE", 10_000)
    for module in (pillow, files):
        monkeypatch.setattr(module, "MAX_PIXELS", 70_000)


def picture(astronaut: np.ndarray, mode: str) -> Image.Image:
    shown = Image.fromarray(astronaut[:300, :420])
    if mode == "RGBA":
        shown.putalpha(Image.linear_gradient("L").resize(shown.size))
        return shown
    if mode == "I;16":
        return Image.fromarray(np.asarray(shown.convert("L")).astype(np.uint16) * 257)
    return shown.convert(mode)


needs_libvips = pytest.mark.skipif(not large.available(), reason="libvips is not there: pip install 'fststyle[large]'")


@needs_libvips
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize(("ending", "mode"), [("png", "RGB"), ("png", "RGBA"), ("tif", "CMYK"), ("tif", "L")])
@pytest.mark.parametrize("size", [40, 130, 300])
def test_a_large_picture_by_rows_is_nearly_the_whole_one_reduced(
    orientation: int, ending: str, mode: str, size: int, astronaut: np.ndarray, tmp_path: Path, small_limits: None
) -> None:
    path, exif = tmp_path / f"a.{ending}", Image.Exif()
    exif[0x0112] = orientation
    picture(astronaut, mode).save(path, exif=exif)
    whole = open_picture(path, max_pixels=10**6)
    height, width = (round(side * size / 420) for side in (whole.height, whole.width))
    wanted = np.asarray(whole.resize((width, height), Image.Resampling.LANCZOS)).astype(int)
    found = read_picture(path, size)
    assert found.rgb.shape == (height, width, 3)
    seen = wanted[..., 3:] > 8 if mode == "RGBA" else True  # of hardly visible pixels colours are rounded much
    assert np.abs(np.where(seen, found.rgb - wanted[..., :3], 0)).mean() < 1.5
    assert (found.alpha is not None) == (mode == "RGBA")
    if found.alpha is not None:
        assert np.abs(found.alpha - wanted[..., 3]).max() <= 3


@needs_libvips
def test_sixteen_bits_are_kept_by_rows(astronaut: np.ndarray, tmp_path: Path, small_limits: None) -> None:
    picture(astronaut, "I;16").save(tmp_path / "a.png")
    deep = read_picture(tmp_path / "a.png", 50, keep_16bit=True).rgb
    assert deep.dtype == np.uint16
    assert len(np.unique(deep % 257)) > 50
    assert np.abs(read_picture(tmp_path / "a.png", 50).rgb - deep / 257).max() <= 1


@needs_libvips
@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
def test_a_large_picture_is_never_held_whole(
    ending: str, astronaut: np.ndarray, tmp_path: Path, small_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(astronaut).save(path)
    real = ImageFile.ImageFile.load

    def load(self: ImageFile.ImageFile) -> object:
        assert self.width * self.height <= 70_000, "was decoded whole"
        return real(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert read_picture(path, 60).rgb.shape == (60, 60, 3)


def test_a_region_is_of_the_reduced_picture(astronaut: np.ndarray, tmp_path: Path, small_limits: None) -> None:
    Image.fromarray(astronaut).save(tmp_path / "a.jpg", quality=95)
    part, whole = (load_image(tmp_path / "a.jpg", 100, region) for region in ((0.5, 0, 1, 0.5), (0, 0, 1, 1)))
    assert np.array_equal(part, whole[:, :, :50, 50:])


@pytest.mark.parametrize("size", [None, 512])
def test_what_cannot_be_reduced_is_refused_without_naming_an_option(
    size: int | None, astronaut: np.ndarray, tmp_path: Path, small_limits: None
) -> None:
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    with pytest.raises(TooManyPixelsError, match=r"512×512 pixels.*; at most 0.07 million are") as caught:
        read_picture(tmp_path / "a.png", size)
    assert "--" not in str(caught.value)


def test_without_libvips_only_jpeg_is_reduced_and_it_says_so(
    astronaut: np.ndarray, tmp_path: Path, small_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "available", lambda: False)
    for ending in ("png", "jpg"):
        Image.fromarray(astronaut).save(tmp_path / f"a.{ending}")
    assert read_picture(tmp_path / "a.jpg", 60).rgb.shape == (60, 60, 3)
    with pytest.raises(ImageError, match=r"512×512 pixels.*pip install 'fststyle\[large\]' reads larger ones by rows"):
        read_picture(tmp_path / "a.png", 60)


def test_a_limit_that_is_given_holds_for_the_file(astronaut: np.ndarray, tmp_path: Path, small_limits: None) -> None:
    Image.fromarray(astronaut).save(tmp_path / "a.jpg")
    with pytest.raises(TooManyPixelsError, match="512×512"):
        read_picture(tmp_path / "a.jpg", 60, max_pixels=100_000)
    assert read_picture(tmp_path / "a.jpg", 60, max_pixels=300_000).rgb.shape == (60, 60, 3)


def test_a_draft_of_a_picture_beyond_the_limit_is_within(astronaut: np.ndarray, small_limits: None) -> None:
    file = io.BytesIO()
    Image.fromarray(astronaut).save(file, "JPEG")
    assert open_picture(file.getvalue(), draft=60).size == (64, 64)
    with pytest.raises(TooManyPixelsError):
        open_picture(file.getvalue(), draft=300)


@needs_libvips
def test_a_header_that_says_of_more_rows_than_there_are_is_damage(astronaut: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(astronaut).save(path)
    header = read_header(path)
    Image.fromarray(astronaut[:300]).save(path)
    assert large.resized_by_rows(path, header, 64, 64).shape == (64, 64, 3)  # what is there, by Pillow
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ImageError, match="is damaged"):
        large.resized_by_rows(path, header, 64, 64)


def test_there_is_an_end_to_what_is_reduced(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("1", (16, 16)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(TooManyPixelsError, match="60000×60000 pixels; at most 2863 million are read"):
        read_picture(path, 64)
