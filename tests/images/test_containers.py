"""Sound pictures in odd files are read, with a warning where something was lost, by Pillow and by libvips alike."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fststyle.images import ImageError, large, open_picture, pillow, read_header, read_picture
from fststyle.images.containers import mended


@pytest.fixture
def photo(astronaut: np.ndarray) -> Image.Image:
    return Image.fromarray(astronaut[:72, :88])


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def chunk(name: bytes, content: bytes, checksum: int = 0) -> bytes:
    """A chunk of a PNG file; ``checksum``: what is wrong with it."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content) ^ checksum)


def with_chunk(data: bytes, one: bytes, at_end: bool = False) -> bytes:
    at = len(data) - 12 if at_end else 33
    return data[:at] + one + data[at:]


MUCH = zlib.compress(b"a" * 3_000_000)
BEYOND = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000))) * 68  # more than Pillow takes in all

#: A format, what becomes of its file, and what the warning says; None: nothing is lost.
SOUND: dict[str, tuple[str, Callable[[bytes], bytes], str | None]] = {
    "much text": ("PNG", lambda d: with_chunk(d, chunk(b"iTXt", b"k\0\1\0\0\0" + MUCH)), None),
    "much text at the end": ("PNG", lambda d: with_chunk(d, chunk(b"zTXt", b"k\0\0" + MUCH), True), "without its text"),
    "far too much text": ("PNG", lambda d: with_chunk(d, BEYOND), "without its text"),
    "plain text": ("PNG", lambda d: with_chunk(d, chunk(b"tEXt", b"k\0" + b"abc" * 10**6)), None),
    "damaged text": ("PNG", lambda d: with_chunk(d, chunk(b"zTXt", b"k\0\0no zlib")), None),
    "wrong checksum of text": ("PNG", lambda d: with_chunk(d, chunk(b"tEXt", b"k\0v", 1)), "without its text"),
    "wrong checksum of the time": (
        "PNG",
        lambda d: with_chunk(d, chunk(b"tIME", bytes(7), 1)),
        "without its damaged tIME chunk",
    ),
    **{
        f"{name.decode()} of a wrong length{' at the end' if at_end else ''}": (
            "PNG",
            lambda d, name=name, at_end=at_end: with_chunk(d, chunk(name, b"\0"), at_end),  # type: ignore[misc]
            f"without its damaged {name.decode()} chunk",
        )
        for name in (b"tRNS", b"gAMA", b"cHRM", b"pHYs", b"acTL")
        for at_end in (False, True)
    },
    "a frame that is none": (
        "PNG",
        lambda d: with_chunk(d, chunk(b"acTL", bytes(8)) + chunk(b"fcTL", bytes(3))),
        "without its damaged acTL chunk, damaged fcTL chunk",
    ),
    "a header more at the end": ("PNG", lambda d: with_chunk(d, chunk(b"IHDR", bytes(3)), True), "damaged IHDR"),
    "a key after the pixels": ("PNG", lambda d: with_chunk(d, chunk(b"tRNS", bytes(6)), True), None),
    "a profile after the pixels": (
        "PNG",
        lambda d: with_chunk(d, chunk(b"iCCP", b"p\0\0" + zlib.compress(b"p")), True),
        None,
    ),
    "a profile that is packed otherwise": (
        "PNG",
        lambda d: with_chunk(d, chunk(b"iCCP", b"p\0\1abc"), True),
        "without its damaged iCCP chunk",
    ),
    "no IEND": ("PNG", lambda d: d[:-12], None),
    "cut after the pixels": ("PNG", lambda d: d[:-16], None),
    "trailing data of PNG": ("PNG", lambda d: d + b"x" * 5000, None),
    "no end marker": ("JPEG", lambda d: d[:-2], "has no end marker"),
    "half an end marker": ("JPEG", lambda d: d[:-1], "has no end marker"),
    "trailing data of JPEG": ("JPEG", lambda d: d + b"x" * 5000, None),
    "a picture behind the picture": ("JPEG", lambda d: d + d, None),
    "no end marker, progressive": ("progressive", lambda d: d[:-2], "has no end marker"),
    "half an end marker, progressive": ("progressive", lambda d: d[:-1], "has no end marker"),
    "zeros for an end marker": ("progressive", lambda d: d[:-2] + bytes(500), "has no end marker"),
    "trailing data, progressive": ("progressive", lambda d: d + bytes(500), None),
    "trailing data of GIF": ("GIF", lambda d: d + b"x" * 5000, None),
    "no trailer": ("GIF", lambda d: d[:-1], None),
    "a screen of 60000 a side": (
        "GIF",
        lambda d: d[:6] + b"\x60\xea\x60\xea" + d[10:],
        "has a logical screen of 60000",
    ),
    "a screen without pixels": ("GIF", lambda d: d[:6] + bytes(4) + d[10:], None),
    "trailing data of WebP": ("WEBP", lambda d: d + b"x" * 5000, None),
    "too large a size in WebP": ("WEBP", lambda d: d[:4] + b"\xff\xff\0\0" + d[8:], "gives a wrong file size"),
    "too small a size in WebP": ("WEBP", lambda d: d[:4] + b"\x40\0\0\0" + d[8:], "gives a wrong file size"),
    "trailing data of TIFF": ("TIFF", lambda d: d + b"x" * 5000, None),
    "trailing data of BMP": ("BMP", lambda d: d + b"x" * 5000, None),
    "a wrong file size in BMP": ("BMP", lambda d: d[:2] + b"\x11\0\0\0" + d[6:], None),
    "a wrong data size in BMP": ("BMP", lambda d: d[:34] + b"\xff\xff\xff\xff" + d[38:], None),
    "trailing data of PPM": ("PPM", lambda d: d + b"x" * 5000, None),
}


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_picture_in_an_odd_file_is_read(
    case: str, photo: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind, spoil, warned = SOUND[case]
    whole = encode(photo, "JPEG", progressive=True) if kind == "progressive" else encode(photo, kind)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(spoil(whole))
    wanted = np.asarray(open_picture(whole))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read_picture(path).rgb, wanted[..., :3])
    said = [record.getMessage() for record in caplog.records]
    assert [str(path) in one and str(warned) in one for one in said] == [True] * (warned is not None)
    header = read_header(path)
    assert (header.height, header.width) == (72, 88)
    if large.available():
        stored = large.decoded(path, header, tmp_path)
        assert np.abs(stored.read(0, 72)[..., :3].astype(int) - wanted[..., :3]).max() <= 2


@pytest.mark.parametrize("case", ["itxt.png", "prog_noeoi.jpg", "hugescreen.gif"])
def test_the_files_that_showed_it_are_read(case: str, data: Path) -> None:
    path = data / "faults" / case
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert min(read_picture(path).rgb.shape[:2]) > 16


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restarts", [0, 3])
def test_a_jpeg_is_mended_only_where_no_pixel_is_missing(progressive: bool, restarts: int, photo: Image.Image) -> None:
    options = {"restart_marker_blocks": restarts} if restarts else {}
    data = encode(photo, "JPEG", progressive=progressive, **options)
    wanted = np.asarray(open_picture(data)).astype(int)
    assert mended(data, 10**6) is None  # it has one
    assert np.array_equal(np.asarray(open_picture(data[:-2])), wanted)
    refused = 0
    for cut in range(3, len(data) // 2, 7):
        try:
            found = np.asarray(open_picture(data[:-cut]))
        except ImageError:
            refused += 1
        else:
            assert np.abs(found - wanted).max() <= 3
    assert refused > 20


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_where_pixels_are_missing_nothing_is_mended_and_nothing_logged(
    kind: str, photo: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, path = encode(photo, kind), tmp_path / "a"
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ImageError, match="is damaged"):
            read_picture(path)
    assert not caplog.records


def test_a_progressive_jpeg_without_its_last_scans_is_refused(photo: Image.Image) -> None:
    data = encode(photo, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="truncated"):
        open_picture(data[:last])


def test_damaged_transparency_of_a_png_is_not_left_out(photo: Image.Image) -> None:
    data = encode(photo.quantize(16), "PNG", transparency=0)
    at = data.index(b"tRNS")
    with pytest.raises(ImageError):
        open_picture(data[: at + 5] + b"\x80" + data[at + 6 :])


def test_the_limit_holds_for_a_frame_not_for_its_screen(
    photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(photo, "GIF")
    (tmp_path / "a.gif").write_bytes(data[:6] + struct.pack("<HH", 200, 300) + data[10:])
    assert read_picture(tmp_path / "a.gif").rgb.shape == (300, 200, 3)  # a screen as it should be
    monkeypatch.setattr(pillow, "MAX_PIXELS", 10000)
    assert read_picture(tmp_path / "a.gif").rgb.shape == (72, 88, 3)
    monkeypatch.setattr(pillow, "MAX_PIXELS", 6000)
    with pytest.raises(ImageError, match="88×72 pixels; at most"):
        read_picture(tmp_path / "a.gif")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_of_an_animation_the_first_frame_is_read_by_both(kind: str, photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a"
    options = {"lossless": True} if kind == "WEBP" else {}
    photo.save(path, kind, save_all=True, append_images=[photo.rotate(180)], duration=100, **options)
    first = read_picture(path).rgb
    assert np.abs(first.astype(int) - np.asarray(photo)).mean() < 10
    if large.available():
        assert np.array_equal(large.decoded(path, read_header(path), tmp_path).read(0, 72)[..., :3], first)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_huge_block_of_metadata_does_not_cost_the_picture(kind: str, photo: Image.Image, tmp_path: Path) -> None:
    path, much = tmp_path / "a", 3_000_000
    options = {"icc_profile": bytes(much)}
    if kind != "JPEG":  # whose EXIF has one segment
        options["exif"] = b"Exif\0\0II*\0" + bytes(much)
    photo.save(path, kind, lossless=True, **options)
    assert read_picture(path).rgb.shape == (72, 88, 3)
    if large.available():
        assert np.array_equal(large.decoded(path, read_header(path), tmp_path).read(0, 72), read_picture(path).rgb)


def test_odd_tags_of_a_tiff_do_not_cost_the_picture(photo: Image.Image, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    rgb, path = np.asarray(photo), tmp_path / "a.tif"
    tags = [(65000, "s", 0, "private", True), (700, "B", 5000, bytes(5000), True), (34377, "B", 3, b"abc", True)]
    tifffile.imwrite(path, rgb, photometric="rgb", extratags=tags)
    assert np.array_equal(read_picture(path).rgb, rgb)
    if large.available():
        assert np.array_equal(large.decoded(path, read_header(path), tmp_path).read(0, 72), rgb)
