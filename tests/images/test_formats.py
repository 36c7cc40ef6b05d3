"""What a photograph comes in: formats, modes, profiles, EXIF."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fststyle.images import open_picture, read_header
from picture_files import BLUE, RED, encode, exif_block, srgb_profile


def plain(colour: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (20, 20), colour)


def corner(data: bytes) -> tuple[int, ...]:
    """The first pixel of a picture as it is opened."""
    pixel = open_picture(data).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


# How a camera stores an upright picture, by orientation: the inverse of what must be done to show it (EXIF 2.3, 4.6.4).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(pattern: np.ndarray, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](pattern))
    data = encode(Image.fromarray(stored), kind, exif=exif)
    assert np.array_equal(np.asarray(open_picture(data)), pattern)


def test_a_photograph_with_an_odd_exif_tag_is_still_turned_upright(pattern: np.ndarray) -> None:
    # Pillow's exif_transpose writes all tags anew and raises at one whose type is not the standard's.
    for tag, kind in ((0x0100, 2), (0x011A, 7), (0x0132, 5)):
        block = exif_block((0x0112, 3, struct.pack("<H", 6)), (tag, kind, b"\1"))
        data = encode(Image.fromarray(pattern), "JPEG", exif=block)
        assert open_picture(data).size == (24, 32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("block", [b"", b"II*\0\x08\0", b"II*\0\xff\xff\xff\x7f", b"nonsense that is no TIFF head"])
def test_a_damaged_exif_block_does_not_cost_the_picture(pattern: np.ndarray, kind: str, block: bytes) -> None:
    data = encode(Image.fromarray(pattern), kind, exif=b"Exif\0\0" + block)
    assert open_picture(data).size == (32, 24)


def test_a_header_is_read_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()[6:]
    plain(RED).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    (tmp_path / "late.png").write_bytes(whole[:-12] + chunk + whole[-12:])
    assert read_header(tmp_path / "late.png").orientation == 6  # behind the pixels
    for kind in ("jpg", "webp", "tif"):
        plain(RED).save(tmp_path / f"a.{kind}")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("was decoded"))
    for kind in ("png", "jpg", "webp", "tif"):
        assert read_header(tmp_path / f"a.{kind}").width == 20


def test_grey_becomes_three_equal_channels(pattern: np.ndarray) -> None:
    opened = np.asarray(open_picture(encode(Image.fromarray(pattern[:, :, 0]), "PNG")))
    assert np.array_equal(opened, pattern[:, :, :1].repeat(3, axis=2))


def test_black_and_white_becomes_rgb() -> None:
    bits = Image.fromarray(np.eye(16, dtype=bool))
    assert np.array_equal(np.asarray(open_picture(encode(bits, "PNG")))[:, :, 2], 255 * np.eye(16))


def test_grey_of_16_bits_keeps_its_brightness() -> None:
    values = np.full((16, 16), 32768, np.uint16)  # of 65535: 127.502 of 255
    values[0, :4] = (0, 65535, 257 * 100, 50)
    opened = np.asarray(open_picture(encode(Image.fromarray(values), "PNG")))
    assert opened.shape == (16, 16, 3)
    assert opened[0, :5, 0].tolist() == [0, 255, 100, 0, 128]


def test_a_dark_picture_of_16_bits_stays_dark() -> None:
    values = np.full((16, 16), 200, np.uint16)
    assert corner(encode(Image.fromarray(values), "PNG")) == (1, 1, 1)


def test_palettes_become_their_colours() -> None:
    picture = plain(RED).quantize(4)
    assert picture.mode == "P"
    assert corner(encode(picture, "PNG")) == RED


def test_a_palette_entry_can_be_transparent() -> None:
    picture = Image.new("P", (20, 20), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(0, (0, 0, 10, 20))
    opened = open_picture(encode(picture, "PNG", transparency=0))
    assert opened.mode == "RGBA"
    assert opened.getpixel((15, 5)) == (200, 100, 50, 255)
    assert opened.getchannel("A").getpixel((5, 5)) == 0


def test_a_transparent_colour_and_grey_with_alpha_keep_their_alpha() -> None:
    colour = open_picture(encode(plain(BLUE), "PNG", transparency=BLUE))
    assert colour.getpixel((0, 0)) == (0, 0, 255, 0)
    assert corner(encode(plain((90, 40), "LA"), "PNG")) == (90, 90, 90, 40)


def test_cmyk_becomes_rgb() -> None:
    assert corner(encode(plain((255, 0, 0, 0), "CMYK"), "TIFF")) == (0, 255, 255)
    red, green, blue = corner(encode(plain((0, 0, 255, 0), "CMYK"), "JPEG", quality=100))
    assert red > 250
    assert green > 250
    assert blue < 5


def swapped_profile() -> bytes:
    """sRGB with its red and blue primaries exchanged: what it calls red is blue."""
    profile = srgb_profile()
    assert profile.count(b"rXYZ") == profile.count(b"bXYZ") == 1
    return profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


def near(found: tuple[int, ...], expected: tuple[int, ...], by: int = 2) -> bool:
    return len(found) == len(expected) and all(abs(a - b) <= by for a, b in zip(found, expected, strict=True))


def test_a_colour_profile_is_converted_to_srgb() -> None:
    assert near(corner(encode(plain(RED), "PNG", icc_profile=swapped_profile())), BLUE)
    assert near(corner(encode(plain((30, 120, 220)), "PNG", icc_profile=swapped_profile())), (220, 120, 30))


def test_an_srgb_profile_changes_nothing(pattern: np.ndarray) -> None:
    data = encode(Image.fromarray(pattern), "PNG", icc_profile=srgb_profile())
    assert np.abs(np.asarray(open_picture(data)).astype(int) - pattern).max() <= 1


def test_a_colour_profile_leaves_alpha_alone() -> None:
    data = encode(plain((*RED, 77), "RGBA"), "PNG", icc_profile=swapped_profile())
    assert near(corner(data), (*BLUE, 77))
    assert corner(data)[3] == 77


def test_the_profile_of_a_palette_applies_to_its_colours() -> None:
    data = encode(plain(RED).quantize(4), "PNG", icc_profile=swapped_profile())
    assert near(corner(data), BLUE)


def test_a_broken_profile_leaves_the_pixels_as_they_are() -> None:
    assert corner(encode(plain(RED), "PNG", icc_profile=b"no profile at all")) == RED


def test_an_animation_gives_its_first_frame() -> None:
    data = encode(plain(RED), "GIF", save_all=True, append_images=[plain(BLUE), plain((0, 255, 0))])
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 3
    assert near(corner(data)[:3], RED)


@pytest.mark.parametrize("size", [(640, 480), (333, 1000), (97, 101), (256, 256)])
@pytest.mark.parametrize("draft", [16, 60, 97, 120, 256])
def test_a_draft_is_never_smaller_than_asked(size: tuple[int, int], draft: int) -> None:
    opened = open_picture(encode(Image.new("RGB", size), "JPEG"), draft=draft)
    assert min(opened.size) >= min(draft, *size)


def test_a_draft_is_decoded_at_a_reduced_scale_where_it_can_be() -> None:
    data = encode(Image.new("RGB", (640, 480)), "JPEG")
    assert open_picture(data, draft=100).size == (160, 120)
    assert open_picture(data).size == (640, 480)
