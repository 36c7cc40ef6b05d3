"""Crops of photographs, files of all kinds, and what cannot be read."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from fststyle.training import data as module
from fststyle.training.crops import centre_crop, random_crop
from fststyle.training.sources import DataError, folder, parquet
from shades import SHADES, batches, images, photographs_of, shades_of, whole, write_parquet


@pytest.fixture(autouse=True)
def _no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def ramp(width: int, height: int) -> Image.Image:
    """Red tells the column, green the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = np.arange(width)
    pixels[:, :, 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


def box_of(crop: Image.Image) -> tuple[float, float, float, float, bool]:
    """Left, top, right, bottom and whether mirrored, of a part of ``ramp``, read from its slopes."""
    pixels = np.asarray(crop).astype(float)
    size = crop.width
    across, down = pixels[:, :, 0].mean(0), pixels[:, :, 1].mean(1)
    middle = np.arange(size // 8, size - size // 8)

    def extent(line: np.ndarray) -> tuple[float, float]:
        slope, start = np.polyfit(middle + 0.5, line[middle] + 0.5, 1)  # pixel i is the middle of [i, i + 1]
        return start, start + size * slope

    (left, right), (top, bottom) = extent(across), extent(down)
    return min(left, right), top, max(left, right), bottom, left > right


@pytest.fixture(scope="module")
def boxes() -> np.ndarray:
    """Of 400 crops, sides of 0.5 to 0.8 of 120: left, top, right, bottom, mirrored."""
    picture, rng = ramp(200, 120), np.random.default_rng(0)
    return np.array([box_of(random_crop(picture, 64, (0.5, 0.8), rng)) for _ in range(400)])


# --- crops ------------------------------------------------------------------------------------------


def test_crops_lie_within_the_picture_and_reach_its_borders(boxes: np.ndarray) -> None:
    left, top, right, bottom, _ = boxes.T
    assert left.min() > -1
    assert top.min() > -1
    assert right.max() < 201
    assert bottom.max() < 121
    assert left.min() < 5
    assert top.min() < 3
    assert right.max() > 195
    assert bottom.max() > 117


def test_sides_of_crops_are_spread_between_the_two_shares_of_the_shorter_side(boxes: np.ndarray) -> None:
    left, top, right, bottom, _ = boxes.T
    share = np.sqrt((right - left) * (bottom - top)) / 120
    assert 0.48 < share.min() < 0.52
    assert 0.78 < share.max() < 0.82
    assert abs(share.mean() - 0.65) < 0.02


def test_crops_are_stretched_a_little_and_mirrored_half_of_the_time(boxes: np.ndarray) -> None:
    left, top, right, bottom, mirrored = boxes.T
    stretch = np.log((right - left) / (bottom - top))
    assert 0.15 < stretch.max() < 0.23
    assert -0.23 < stretch.min() < -0.15
    assert 0.4 < mirrored.mean() < 0.6


@pytest.mark.parametrize("sides", [(100, 100), (40, 200), (200, 40), (33, 32)])
def test_the_largest_share_takes_the_whole_shorter_side_of_any_shape(sides: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        crop = random_crop(ramp(*sides), 64, (1.0, 1.0), rng)
        left, top, right, bottom, _ = box_of(crop)
        assert crop.size == (64, 64)
        assert -1.5 < left < right < sides[0] + 1.5
        assert -1.5 < top < bottom < sides[1] + 1.5
        assert max(right - left, bottom - top) > 0.95 * min(sides)


def test_the_central_crop_is_the_middle_of_the_longer_side() -> None:
    crop = np.asarray(centre_crop(ramp(100, 60), 60))  # the shorter side is there already: nothing is resized
    np.testing.assert_array_equal(crop[0, :, 0], np.arange(20, 80))
    np.testing.assert_array_equal(crop[:, 0, 1], np.arange(60))


def halves(mode: str, left: Any, right: Any) -> Image.Image:
    """64 × 64 of two colours."""
    picture = Image.new(mode, (64, 64), left)
    picture.paste(right, (32, 0, 64, 64))
    return picture


# --- files ------------------------------------------------------------------------------------------


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90°: what is left in the file is up
    halves("RGB", (200, 0, 0), (0, 0, 200)).save(tmp_path / "a.jpg", exif=exif)
    crop = whole(tmp_path)
    assert crop[0, :12].mean() > 150
    assert crop[2, :12].mean() < 50
    assert crop[0, -12:].mean() < 50
    assert crop[2, -12:].mean() > 150


@pytest.mark.parametrize(
    ("mode", "ending", "colour", "expected"),
    [
        ("L", "jpg", 100, (100, 100, 100)),
        ("CMYK", "jpg", (0, 255, 255, 0), (255, 0, 0)),
        ("RGBA", "png", (10, 200, 30, 128), (10, 200, 30)),
        ("1", "png", 1, (255, 255, 255)),
        ("I;16", "png", 40000, (156, 156, 156)),  # 40000 / 65535 · 255
    ],
)
def test_grey_cmyk_and_transparent_files_become_rgb(
    tmp_path: Path, mode: str, ending: str, colour: Any, expected: tuple[int, ...]
) -> None:
    Image.new(mode, (64, 64), colour).save(tmp_path / f"a.{ending}")
    crop = whole(tmp_path)
    torch.testing.assert_close(crop.mean((1, 2)), torch.tensor(expected).float(), rtol=0, atol=4)


def test_large_jpegs_are_decoded_smaller_but_never_below_the_size_of_a_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def spy(picture: Image.Image, *options: Any) -> Image.Image:
        decoded.append(min(picture.size))
        return random_crop(picture, *options)

    monkeypatch.setattr(module, "random_crop", spy)
    for side in range(840, 1000, 8):  # an eighth of them: 105 to 124 pixels, of which 0.6 is 63 to 74
        Image.new("RGB", (side, side + 100), (9, 9, 9)).save(tmp_path / f"{side}.jpg")
    batches(photographs_of(folder(tmp_path), held_out=0, size=64, batch_size=20), 1)
    assert max(decoded) < 840
    # The smallest crop takes 0.6 of the shorter side, and a tenth less across or down.
    assert min(decoded) * 0.6 * math.exp(-0.1) >= 64


def test_what_photographs_hide_is_not_trained_on(tmp_path: Path) -> None:
    alpha, crops = np.zeros((64, 72), np.uint8), []
    alpha[10:50, 12:60] = 255
    for number, colour in enumerate(((0, 0, 0), (255, 255, 255))):
        rgb = np.where(alpha[..., None] > 0, (10, 200, 30), colour)
        (tmp_path / str(number)).mkdir()
        for name in "abc":
            Image.fromarray(np.dstack([rgb, alpha]).astype(np.uint8)).save(tmp_path / str(number) / f"{name}.png")
        crops.append(images(photographs_of(folder(tmp_path / str(number)), held_out=0), 2))
    torch.testing.assert_close(*crops, rtol=0, atol=0)
    torch.testing.assert_close(crops[0].amax((0, 2, 3)), torch.tensor((10, 200, 30)) / 255)


def test_a_wholly_transparent_photograph_counts_as_unreadable(shades: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(shades, tmp_path / "shades"))
    Image.new("RGBA", (48, 40), (1, 2, 3, 0)).save(path / "03.png")
    messages = [line for batch in batches(photographs_of(folder(path)), 11) for line in batch["unreadable"]]
    assert messages
    assert all(line == messages[0] for line in messages)
    assert messages[0].startswith(f"{path}/03.png: is wholly transparent")


@pytest.fixture
def damaged(shades: Path, tmp_path: Path) -> tuple[Path, int]:
    """The shades with one cut off in the middle, and which."""
    path = Path(shutil.copytree(shades, tmp_path / "damaged"))
    bad = next(i for i in shades_of(images(photographs_of(folder(shades)), 2)))
    data = (path / f"{bad:02d}.png").read_bytes()
    (path / f"{bad:02d}.png").write_bytes(data[: len(data) // 2])
    return path, bad


# --- unreadable pictures ----------------------------------------------------------------------------


def test_a_damaged_picture_is_named_and_replaced_and_changes_nothing_else(
    shades: Path, damaged: tuple[Path, int]
) -> None:
    path, bad = damaged
    before, after = images(photographs_of(folder(shades)), 11), batches(photographs_of(folder(path)), 11)
    sound = [i for i, shade in enumerate(shades_of(before)) if shade != bad]
    crops = torch.cat([batch["image"] for batch in after])
    assert len(sound) == 40
    torch.testing.assert_close(crops[sound], before[sound], rtol=0, atol=0)
    held = set(shades_of(photographs_of(folder(path)).held_out_images))
    assert set(shades_of(crops)) == set(range(SHADES)) - held - {bad}
    messages = [message for batch in after for message in batch["unreadable"]]
    assert len(messages) >= 4  # once per epoch, more where the substitute was the same
    assert all(message.startswith(f"{path}/{bad:02d}.png: is damaged") for message in messages)


def test_substitutes_are_the_same_for_any_number_of_workers(damaged: tuple[Path, int]) -> None:
    source = folder(damaged[0])
    alone, helped = batches(photographs_of(source), 6), batches(photographs_of(source, workers=2), 6)
    for a, b in zip(alone, helped, strict=True):
        torch.testing.assert_close(a["image"], b["image"], rtol=0, atol=0)
        assert a["unreadable"] == b["unreadable"]
    assert any(batch["unreadable"] for batch in alone)


def test_a_damaged_streamed_picture_is_named_and_replaced_by_the_generated_one_of_its_position(
    shades: Path, tmp_path: Path, drawn: list[int]
) -> None:
    rows = [{"path": file.name, "bytes": file.read_bytes()} for file in sorted(shades.iterdir())[:5]]
    for name, broken in (("sound", rows), ("broken", [*rows[:3], {"path": "cut.png", "bytes": b"no picture"}, None])):
        write_parquet(tmp_path / f"{name}.parquet", broken)  # type: ignore[arg-type]
    sound, broken = (
        batches(photographs_of(parquet(str(tmp_path / f"{name}.parquet"), streaming=True), held_out=0), 5)
        for name in ("sound", "broken")
    )
    before, after = (torch.cat([batch["image"] for batch in part]) for part in (sound, broken))
    kept = [i for i, index in enumerate(shades_of(before)) if index < 3]
    torch.testing.assert_close(after[kept], before[kept], rtol=0, atol=0)
    replaced = [i for i in range(20) if i not in kept]
    assert len(replaced) == 8
    assert min(float(after[i].std()) for i in replaced) > 0.01
    assert drawn == replaced
    messages = [message for batch in broken for message in batch["unreadable"]]
    assert sorted({message.split(" (")[0] for message in messages}) == [
        "a row without a picture",
        "cut.png: is not a picture in a known format",
    ]
    assert len(messages) == 8


def test_a_damaged_held_out_picture_is_left_out_and_named(
    shades: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(shutil.copytree(shades, tmp_path / "damaged"))
    held = shades_of(photographs_of(folder(shades)).held_out_images)
    (path / f"{held[0]:02d}.png").write_bytes(b"")
    data = photographs_of(folder(path))
    assert shades_of(data.held_out_images) == held[1:]
    assert f"{path}/{held[0]:02d}.png: is empty (0 bytes)" in caplog.text
    assert held[0] not in shades_of(images(data, 11))


def test_a_folder_in_which_nothing_can_be_read_is_given_up(tmp_path: Path) -> None:
    for index in range(6):
        (tmp_path / f"{index}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"50 pictures in a row cannot be read, the last: .*\.jpg: is empty"):
        batches(photographs_of(folder(tmp_path), held_out=0), 1)
