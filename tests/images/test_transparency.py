"""What lies hidden under alpha 0 is replaced by what can be seen, the same in memory and in files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fststyle.images import ImageError, large, load_image, open_visible, read_header, read_picture, save_image
from fststyle.images.transparency import filled, visible_box

needs_vips = pytest.mark.skipif(not large.available(), reason="libvips is not there: pip install 'fststyle[large]'")
#: Colours to hide: each is far from the others, and from most of what is seen.
HIDDEN = [(0, 0, 0), (255, 255, 255), (255, 0, 255)]


def shape_of(height: int, width: int) -> np.ndarray:
    """Alpha of a ring with a soft dot in it: rows that are wholly hidden, partly, and in several runs."""
    picture = Image.new("L", (width, height))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((width // 8, height // 5, width * 7 // 8, height * 4 // 5), fill=255)
    draw.ellipse((width // 3, height // 3, width * 2 // 3, height * 2 // 3), fill=0)
    draw.ellipse((width * 4 // 9, height * 4 // 9, width * 5 // 9, height * 5 // 9), fill=90)
    return np.asarray(picture)


def hiding(rgb: np.ndarray, alpha: np.ndarray, colour: Any) -> np.ndarray:
    """Pixels (H, W, 4) of which the hidden ones have a colour, or those of another picture."""
    return np.dstack([np.where(alpha[..., None] > 0, rgb, np.asarray(colour)), alpha]).astype(rgb.dtype)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


# --- filling ------------------------------------------------------------------------------------------


def row_of(text: str) -> np.ndarray:
    """Grey pixels (1, W, 4): a letter is a level and visible, a dot is hidden, over white."""
    levels = [255 if letter == "." else ord(letter) for letter in text]
    return np.array([[[level] * 3 + [0 if level == 255 else 255] for level in levels]], np.uint8)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("abc.", "abcc"),
        ("..abc", "baabc"),
        ("abc......", "abccbaabc"),  # again and again
        ("......abc", "abccbaabc"),
        ("a..b", "aabb"),
        ("a.....b", "aaabbbb"),  # beyond its ends the sequence is reflected; half-way from the left one on
        ("ab.cd", "abbcd"),
        ("a......", "aaaaaaa"),
        ("abcd", "abcd"),
    ],
)
def test_visible_pixels_are_mirrored_into_hidden_ones(seen: str, expected: str) -> None:
    assert "".join(map(chr, filled(row_of(seen))[0, :, 0])) == expected
    assert "".join(map(chr, filled(row_of(seen).transpose(1, 0, 2))[:, 0, 0])) == expected


def test_rows_with_little_to_see_take_from_fuller_ones() -> None:
    rows = [row_of(text)[0] for text in ("....", "x...", "abcd", "efgh", "....")]
    pixels = filled(np.stack(rows))
    assert ["".join(map(chr, row)) for row in pixels[..., 0]] == ["efgh", "xbcd", "abcd", "efgh", "efgh"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_hidden_colours_are_gone_and_nothing_else_changes(dtype: Any, astronaut: np.ndarray) -> None:
    scale = 257 if dtype == np.uint16 else 1
    rgb, alpha = astronaut[:90, :120].astype(dtype) * scale, shape_of(90, 120).astype(dtype) * scale
    results = [filled(hiding(rgb, alpha, np.array(colour) * scale)) for colour in (*HIDDEN, rgb[::-1, ::-1] // scale)]
    assert all(np.array_equal(result, results[0]) for result in results)
    assert np.array_equal(results[0][alpha > 0], np.dstack([rgb, alpha])[alpha > 0])  # soft pixels as well
    assert np.array_equal(results[0][..., 3], alpha)
    assert results[0].dtype == dtype
    colours = {tuple(pixel) for pixel in rgb[alpha == 255 * scale].tolist()}
    assert {tuple(pixel) for pixel in results[0][alpha == 0][:, :3].tolist()} <= colours  # none that is not there


def test_without_anything_opaque_faint_pixels_are_mirrored() -> None:
    pixels = row_of("ab.")
    pixels[..., 3] = np.minimum(pixels[..., 3], 3)
    assert filled(pixels)[0, :, 0].tolist() == [ord("a"), ord("b"), ord("b")]


def test_means_and_deviations_stay_near_those_of_the_visible_part(astronaut: np.ndarray) -> None:
    rgb, alpha = astronaut[:256, :256], np.zeros((256, 256), np.uint8)
    alpha[80:200, 70:190] = 255
    seen, whole = rgb[alpha > 0].astype(float), filled(hiding(rgb, alpha, (0, 0, 0)))[..., :3].reshape(-1, 3)
    assert np.abs(whole.mean(0) - seen.mean(0)).max() < 12
    assert np.abs(whole.std(0) - seen.std(0)).max() < 8


def test_a_picture_without_hidden_pixels_is_not_even_copied(astronaut: np.ndarray) -> None:
    faint = np.dstack([astronaut, np.full(astronaut.shape[:2], 1, np.uint8)])
    assert filled(faint) is faint


def test_what_is_visible_is_found() -> None:
    alpha = np.zeros((30, 40), np.uint8)
    alpha[5, 7], alpha[20, 30] = 1, 255
    assert visible_box(alpha) == (slice(5, 21), slice(7, 31))


# --- files --------------------------------------------------------------------------------------------


def both(path: Path) -> list[np.ndarray]:
    """A file as it is read whole, in 8 bits and in its own, and strip by strip."""
    pictures = [read_picture(path).rgb, read_picture(path, keep_16bit=True).rgb]
    if large.available():
        stored = large.decoded(path, read_header(path), path.parent)
        pictures.append(stored.read(0, stored.shape[0])[..., :3])
    return pictures


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "avif", "tga", "jp2"])
def test_every_format_with_alpha(ending: str, tmp_path: Path, astronaut: np.ndarray) -> None:
    alpha = shape_of(90, 120)
    lossless = {"webp": {"lossless": True, "exact": True}, "avif": {"quality": 100, "subsampling": "4:4:4"}}
    results = []
    for colour in HIDDEN[:2]:
        path = tmp_path / f"a.{ending}"
        picture = Image.fromarray(hiding(astronaut[:90, :120], alpha, colour))
        picture.save(path, **lossless.get(ending, {}))  # type: ignore[arg-type]
        results.append(both(path))
    for black, white in zip(*results, strict=True):
        away = np.abs(black.astype(int) - white)
        assert away.max() == 0 if ending != "avif" else away[alpha == 255].mean() < 1


def png(depth: int, kind: int, rows: np.ndarray, key: bytes | None = None, palette: bytes | None = None) -> bytes:
    """A PNG of rows of bytes, with a transparent colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 32, len(rows), depth, kind, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"PLTE", palette) if palette else b"", chunk(b"tRNS", key) if key else b""]
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "kind", ["grey", "grey 16", "rgb", "rgb 16", "palette", "grey alpha 16", "rgb alpha 16", "bit"]
)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_way_in_which_png_hides_pixels(kind: str, level: int, tmp_path: Path) -> None:
    seen, rng = np.zeros((32, 32), bool), np.random.default_rng(0)
    seen[8:26, 6:29] = True
    deep = kind.endswith("16")
    top, dtype = (65535, ">u2") if deep else (255, "u1")
    hidden = (7, top - 9, 12345 * top // 65535)[level]
    levels = rng.integers(0, top + 1, (32, 32, 3))
    levels[levels == hidden] += 1  # else it would be transparent
    grey = np.where(seen, levels[..., 0], hidden).astype(dtype)
    rgb = np.where(seen[..., None], levels, hidden).astype(dtype)
    key, alpha = struct.pack(">H", hidden), np.where(seen, top, 0).astype(dtype)
    palette = np.where(seen, 1 + levels[..., 0] % 3, 0).astype("u1")
    colours = bytes([hidden % 256] * 3 + [10, 200, 30, 50, 60, 70, 200, 100, 0])
    path = tmp_path / "a.png"
    path.write_bytes(
        {
            "grey": lambda: png(8, 0, grey, key),
            "grey 16": lambda: png(16, 0, grey, key),
            "rgb": lambda: png(8, 2, rgb.reshape(32, -1), key * 3),
            "rgb 16": lambda: png(16, 2, rgb.reshape(32, -1), key * 3),
            "palette": lambda: png(8, 3, palette, b"\0", colours),
            "grey alpha 16": lambda: png(16, 4, np.dstack([grey, alpha]).reshape(32, -1)),
            "rgb alpha 16": lambda: png(16, 6, np.dstack([rgb, alpha]).reshape(32, -1)),
            "bit": lambda: png(1, 0, np.packbits(seen, axis=1), struct.pack(">H", 0)),
        }[kind]()
    )
    found = read_picture(path).alpha
    assert found is not None
    assert np.array_equal(found > 0, seen)
    for rgb in both(path):
        colours_seen = {tuple(pixel) for pixel in rgb[seen].tolist()}
        assert {tuple(pixel) for pixel in rgb[~seen].tolist()} <= colours_seen


def test_the_first_frame_of_an_animation_is_filled(tmp_path: Path, astronaut: np.ndarray) -> None:
    frame = Image.fromarray(hiding(astronaut[:40, :48], shape_of(40, 48), (255, 0, 255)))
    frame.save(tmp_path / "a.gif", save_all=True, append_images=[frame.rotate(90)])
    picture = read_picture(tmp_path / "a.gif")
    assert picture.alpha is not None
    seen = {tuple(pixel) for pixel in picture.rgb[picture.alpha > 0].tolist()}
    assert {tuple(pixel) for pixel in picture.rgb[picture.alpha == 0].tolist()} <= seen


@needs_vips
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("size", [None, 64, 333])
def test_files_are_filled_as_pictures_in_memory(
    orientation: int, size: int | None, tmp_path: Path, astronaut: np.ndarray
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb, alpha = astronaut[:300, :120], shape_of(300, 120)
    Image.fromarray(hiding(rgb, alpha, (255, 0, 255))).save(tmp_path / "a.png", exif=exif)
    header, whole = read_header(tmp_path / "a.png"), read_picture(tmp_path / "a.png", size)
    stored = large.decoded(tmp_path / "a.png", header, tmp_path, size)
    pixels = stored.read(0, stored.shape[0])
    assert whole.alpha is not None
    assert np.abs(pixels.astype(int) - np.dstack([whole.rgb, whole.alpha])).max() <= (1 if size else 0)


@pytest.mark.parametrize("size", [40, 77, 400])
def test_resizing_mixes_no_hidden_colour_into_visible_ones(size: int, tmp_path: Path, astronaut: np.ndarray) -> None:
    flat, alpha = np.full((90, 120, 3), (200, 90, 40), np.uint8), shape_of(90, 120)
    save_image(flat, tmp_path / "a.png", alpha)
    Image.fromarray(hiding(flat, alpha, (0, 255, 255))).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (read_picture(tmp_path / name, size).rgb == flat[0, 0]).all()


def test_a_wholly_transparent_picture_is_refused_by_name(tmp_path: Path, astronaut: np.ndarray) -> None:
    path = tmp_path / "a.png"
    save_image(astronaut[:40, :40], path, np.zeros((40, 40), np.uint8))
    readers = [read_picture, load_image, open_visible]
    if large.available():
        readers.append(lambda path: large.decoded(path, read_header(path), tmp_path))
    for read in readers:
        with pytest.raises(ImageError, match=r"a\.png: is wholly transparent; expected"):
            read(path)
    with pytest.raises(ImageError, match="the picture: is wholly transparent"):
        open_visible(path.read_bytes())


def test_pictures_for_training_are_filled_and_opaque(astronaut: np.ndarray) -> None:
    alpha = shape_of(90, 120)
    pictures = [
        np.asarray(open_visible(encoded(Image.fromarray(hiding(astronaut[:90, :120], alpha, colour)), "PNG")))
        for colour in HIDDEN
    ]
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    assert pictures[0].shape == (90, 120, 3)


# --- style pictures -----------------------------------------------------------------------------------


def test_margins_of_a_style_picture_are_left_out_before_it_is_resized(tmp_path: Path, astronaut: np.ndarray) -> None:
    rgb, alpha = astronaut[:100, :160].copy(), np.zeros((100, 160), np.uint8)
    alpha[20:80, 30:110] = 255
    save_image(rgb, tmp_path / "a.png", alpha)
    save_image(rgb[20:80, 30:110].copy(), tmp_path / "b.png")
    for size in (None, 40, 120):
        trimmed, wanted = load_image(tmp_path / "a.png", size, trim=True), load_image(tmp_path / "b.png", size)
        assert trimmed.shape == wanted.shape
        assert (trimmed - wanted).abs().max() <= 1.01 / 255
    assert load_image(tmp_path / "a.png").shape[-2:] == (100, 160)


def test_too_little_to_see_is_refused(tmp_path: Path, astronaut: np.ndarray) -> None:
    alpha = np.zeros((100, 160), np.uint8)
    alpha[20:30, 30:110] = 255
    save_image(astronaut[:100, :160].copy(), tmp_path / "a.png", alpha)
    with pytest.raises(ImageError, match=r"a\.png: is 80×10 pixels, without what is transparent around it; expected"):
        load_image(tmp_path / "a.png", trim=True)


def test_a_region_shows_nothing_from_beyond_it(tmp_path: Path) -> None:
    rgb, alpha = np.zeros((40, 80, 3), np.uint8), np.full((40, 80), 255, np.uint8)
    rgb[:, :40], rgb[:, 40:] = (250, 0, 0), (0, 0, 250)
    alpha[5:35, 20:40] = 0
    alpha[20:, :40] = 0
    save_image(rgb, tmp_path / "a.png", alpha)
    assert load_image(tmp_path / "a.png", region=(0, 0, 0.5, 1))[0, 2].max() == 0  # no blue
    with pytest.raises(ImageError, match=r"a\.png: the region \[0, 0\.5, 0\.5, 1\]: is wholly transparent"):
        load_image(tmp_path / "a.png", region=(0, 0.5, 0.5, 1))
