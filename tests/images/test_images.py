"""Picture files: there and back, broken ones, folders, and what is refused."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

from fststyle import images
from fststyle.images import (
    ImageError,
    check_size,
    check_writable,
    contact_sheet,
    find_pictures,
    load_image,
    open_picture,
    read_picture,
    resize_shorter_side,
    save_image,
    to_image,
    to_pixels,
)
from picture_files import BLUE, RED, encode, exif_block, srgb_profile


def refusal(path: Path) -> str:
    """The message with which a picture is refused: one line that names the file."""
    with pytest.raises(ImageError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# --- there and back ------------------------------------------------------------------------------


def test_a_png_comes_back_pixel_for_pixel(tmp_path: Path, pattern: np.ndarray) -> None:
    save_image(pattern, tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png").rgb, pattern)
    image = load_image(tmp_path / "a.png")
    assert image.shape == (1, 3, 24, 32)
    assert image.dtype == torch.float32
    save_image(image, tmp_path / "b.png")
    assert np.array_equal(read_picture(tmp_path / "b.png").rgb, pattern)


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".webp", ".tif", ".bmp"])
def test_the_ending_chooses_the_format(tmp_path: Path, pattern: np.ndarray, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    save_image(pattern, path)
    with Image.open(path) as written:
        assert written.format == {"jpg": "JPEG", "tif": "TIFF"}.get(ending[1:], ending[1:].upper())
    difference = read_picture(path).rgb.astype(int) - pattern
    assert np.abs(difference).mean() < 3


def test_levels_map_to_the_unit_interval_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    image = to_image(levels)
    assert image.min() == 0
    assert image.max() == 1
    assert image[0, 0, 3, 3].item() == pytest.approx(51 / 255)
    assert np.array_equal(to_pixels(image), levels)


def test_to_image_puts_channels_first_and_shares_no_memory(pattern: np.ndarray) -> None:
    image = to_image(pattern)
    assert image[0, 1, 20, 5].item() == pytest.approx(200 / 255)  # green is 10 y
    image.zero_()
    assert pattern.max() > 0


def test_to_pixels_clamps_and_rounds() -> None:
    values = torch.tensor([-3.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 7.0])
    pixels = to_pixels(values.expand(3, 1, 6).double())
    assert pixels.dtype == np.uint8
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]


def test_to_pixels_takes_one_image_only() -> None:
    with pytest.raises(ValueError, match="batch of 2"):
        to_pixels(torch.zeros(2, 3, 16, 16))


def test_alpha_is_kept_where_the_format_has_it(tmp_path: Path, pattern: np.ndarray) -> None:
    alpha = (np.arange(24 * 32).reshape(24, 32) % 256).astype(np.uint8)
    for name in ("a.png", "a.tif"):
        save_image(pattern, tmp_path / name, alpha)
        picture = read_picture(tmp_path / name)
        assert picture.alpha is not None
        assert np.array_equal(picture.alpha, alpha)
        assert np.array_equal(picture.rgb[alpha > 0], pattern[alpha > 0])
    save_image(pattern, tmp_path / "a.jpg", alpha)
    assert read_picture(tmp_path / "a.jpg").alpha is None


def test_the_longer_side_is_brought_to_size(tmp_path: Path) -> None:
    save_image(np.full((40, 80, 3), 7, np.uint8), tmp_path / "wide.png")
    save_image(np.full((80, 40, 3), 7, np.uint8), tmp_path / "tall.png")
    assert load_image(tmp_path / "wide.png", 60).shape == (1, 3, 30, 60)
    assert load_image(tmp_path / "tall.png", 160).shape == (1, 3, 160, 80)
    assert load_image(tmp_path / "tall.png", 80).shape == (1, 3, 80, 40)
    with Image.open(tmp_path / "wide.png") as picture:
        assert resize_shorter_side(picture, 20).size == (40, 20)


def test_a_region_is_cut_after_the_picture_was_brought_to_size(tmp_path: Path) -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, 40:] = 200
    save_image(pixels, tmp_path / "a.png")
    part = load_image(tmp_path / "a.png", 160, (0.5, 0, 1, 0.5))
    assert part.shape == (1, 3, 40, 80)
    assert float((part[..., :36, 4:] * 255).mean()) == pytest.approx(200, abs=1)
    whole = load_image(tmp_path / "a.png", 60)
    assert torch.equal(load_image(tmp_path / "a.png", 60, [0, 0, 1, 1]), whole)
    for region in ((0, 0, 1), (0.5, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 2), (0, 0, "a", 1)):
        with pytest.raises(ImageError, match=r"the region is \[.*expected \[left, top, right, bottom\] as fractions"):
            load_image(tmp_path / "a.png", 60, region)
    with pytest.raises(ImageError, match=r"is 8×30 pixels at this size"):
        load_image(tmp_path / "a.png", 60, (0.2, 0, 0.33, 1))


# --- broken files --------------------------------------------------------------------------------


def test_what_is_no_picture_is_refused_by_name(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert "folder" in refusal(tmp_path / "folder.jpg")
    (tmp_path / "empty.jpg").touch()
    assert "empty" in refusal(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("This is no picture.\nNot at all.\n")
    assert "not a picture" in refusal(tmp_path / "text.jpg")


def test_a_picture_of_one_pixel_is_refused_with_its_size(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    message = refusal(tmp_path / "dot.png")
    assert "1×1" in message
    assert "16×16" in message


def test_sixteen_pixels_are_enough_and_fifteen_are_not(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "enough.png")
    assert read_picture(tmp_path / "enough.png").rgb.shape == (16, 16, 3)
    Image.new("RGB", (100, 15)).save(tmp_path / "short.png")
    assert "100×15" in refusal(tmp_path / "short.png")
    Image.new("RGB", (100, 20)).save(tmp_path / "banner.png")
    with pytest.raises(ImageError, match="50×10 pixels at this size"):
        load_image(tmp_path / "banner.png", 50)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path, astronaut: np.ndarray, kind: str) -> None:
    data = encode(Image.fromarray(astronaut[:64, :64]), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    for length in {*range(1, 40, 3), *(len(data) * part // 20 for part in range(1, 20))}:
        path.write_bytes(data[:length])
        refusal(path)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(images.pillow, "MAX_PIXELS", 1000)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("was decoded"))
    assert "40×30" in refusal(tmp_path / "large.png")


def test_what_pillow_raises_on_damaged_bytes_becomes_one_line(
    tmp_path: Path, pattern: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image(pattern, tmp_path / "a.png")
    for error in (struct.error("argument"), RuntimeError("no frame"), zlib.error("checksum"), ZeroDivisionError()):

        def fail(_: Image.Image, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
            assert "damaged" in refusal(tmp_path / "a.png")


def with_checksums(data: bytes) -> bytes:
    """A PNG file with the checksums of its chunks set right, so that damage reaches the decoder."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + struct.unpack(">I", out[at : at + 4])[0]
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


FUZZED = ["JPEG", "PNG", "GIF", "WEBP", *(["AVIF"] if features.check("avif") else [])]


@pytest.mark.parametrize("kind", FUZZED)
def test_damage_anywhere_raises_nothing_but_image_error(
    pattern: np.ndarray, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images.pillow, "MAX_PIXELS", 10**5)  # damaged sizes must not take memory here
    rng = np.random.default_rng(0)
    options = {} if kind == "GIF" else {"exif": exif_block((0x0112, 3, struct.pack("<H", 6)), (0x0100, 4, b"\1"))}
    sound = encode(Image.fromarray(pattern), kind, icc_profile=srgb_profile()[:200], **options)
    refusals = []
    for turn in range(150):
        data = bytearray(sound)
        for at in rng.integers(0, len(data) if turn % 3 else 120, rng.integers(1, 6)):
            data[at] = rng.integers(256)
        if turn % 5 == 0:
            del data[rng.integers(len(data)) :]
        try:
            open_picture(with_checksums(data) if kind == "PNG" else bytes(data), draft=8 if turn % 2 else None)
        except ImageError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert not any("\n" in refusal for refusal in refusals)


# --- folders -------------------------------------------------------------------------------------


def test_find_pictures_looks_into_sub_folders_and_sorts(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "fake.jpg").mkdir()
    for name in ("z.PNG", "a.jpeg", "notes.txt", "b/deep/m.webp"):
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_pictures(tmp_path)] == [
        "a.jpeg",
        "b/deep/m.webp",
        "z.PNG",
    ]
    assert [path.name for path in find_pictures(tmp_path, recursive=False)] == ["a.jpeg", "z.PNG"]


def test_find_pictures_refuses_what_has_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match="no pictures"):
        find_pictures(tmp_path)
    with pytest.raises(ImageError, match="not a folder"):
        find_pictures(tmp_path / "notes.txt")


def test_a_lack_of_memory_is_no_damage(tmp_path: Path, pattern: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(pattern, tmp_path / "a.png")

    def load(_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(MemoryError):
        open_picture(tmp_path / "a.png")


# --- writing -------------------------------------------------------------------------------------


def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, pattern: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.png"
    save_image(pattern, target)
    old = target.read_bytes()

    def half(_: Image.Image, file: io.BufferedWriter, **__: Any) -> None:
        file.write(b"half a pict")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="No space"):
        save_image(pattern, target)
    assert target.read_bytes() == old
    assert list(tmp_path.iterdir()) == [target]


def test_a_written_file_has_the_permissions_of_any_new_file(
    tmp_path: Path, pattern: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without setting the umask meanwhile, which is the whole process's."""
    (tmp_path / "plain").touch()
    monkeypatch.delattr(os, "umask")
    save_image(pattern, tmp_path / "a.png")
    assert os.stat(tmp_path / "a.png").st_mode == os.stat(tmp_path / "plain").st_mode


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.txt"])
def test_an_unknown_ending_is_refused_and_nothing_written(tmp_path: Path, pattern: np.ndarray, name: str) -> None:
    with pytest.raises(ImageError, match=r"use \.png"):
        save_image(pattern, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_none_is_refused(tmp_path: Path, pattern: np.ndarray) -> None:
    with pytest.raises(ImageError, match="no such folder"):
        save_image(pattern, tmp_path / "missing" / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="no such folder"):
        check_writable(tmp_path / "file")


def test_a_folder_that_takes_no_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:  # rights would not stop a test that runs as root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ImageError, match=r"cannot be written to .*Permission denied"):
        check_writable(tmp_path)


# --- small things --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 4, 16, 16), (1, 1, 16, 16), (1, 3, 15, 64), (1, 3, 64, 15)])
def test_check_size_refuses_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        check_size(torch.zeros(shape))


def test_check_size_accepts_the_smallest() -> None:
    check_size(torch.zeros(5, 3, 16, 16))


def test_a_contact_sheet_sets_pictures_in_rows_on_white() -> None:
    red, blue = np.full((2, 3, 3), RED, np.uint8), np.full((2, 3, 3), BLUE, np.uint8)
    sheet = contact_sheet([[red, blue], [blue]], gap=1)
    assert sheet.shape == (5, 7, 3)
    assert tuple(sheet[1, 2]) == RED
    assert tuple(sheet[1, 4]) == BLUE
    assert tuple(sheet[3, 0]) == BLUE
    assert (sheet[2] == 255).all()
    assert (sheet[:, 3] == 255).all()
    assert (sheet[3:, 4:] == 255).all()
