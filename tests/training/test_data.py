"""The endless sequence of crops: a function of seed and position, of nothing else."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fststyle.training import data as module
from fststyle.training.crops import centre_crop, random_crop
from fststyle.training.data import Photographs
from fststyle.training.sources import DataError, Generated, Source, folder, parquet

SHADES = 13  # a prime: no batch size divides an epoch


def shade(index: int) -> tuple[int, int, int]:
    return 10 * index + 5, 90, 250 - 10 * index


def shades_of(images: Tensor) -> list[int]:
    """Which of the shades each image (B, 3, H, W) was cropped from."""
    red = images[:, 0].mean((1, 2)) * 255
    return [round((float(value) - 5) / 10) for value in red]


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour each: whatever the crop, a mean tells which picture it is from."""
    path = tmp_path_factory.mktemp("shades")
    for index in range(SHADES):
        Image.new("RGB", (48, 40), shade(index)).save(path / f"{index:02d}.png")
    return path


@pytest.fixture(scope="module")
def shards(shades: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shades as three parquet files; their rows are shades 0-4, 5-9 and 10-12."""
    path = tmp_path_factory.mktemp("shards")
    files = sorted(shades.iterdir())
    for number, first in enumerate(range(0, SHADES, 5)):
        rows = [{"path": file.name, "bytes": file.read_bytes()} for file in files[first : first + 5]]
        write_parquet(path / f"{number}.parquet", rows)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    features = datasets.Features({"image": datasets.Image(decode=False)})
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(str(path))


@pytest.fixture(autouse=True)
def _no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def photographs_of(source: Source, **options: Any) -> Photographs:
    return Photographs(source, **{"size": 32, "batch_size": 4, "workers": 0, "held_out": 2, **options})


def batches(data: Photographs, count: int) -> list[dict[str, Any]]:
    return list(islice(data.train_dataloader(), count))


def images(data: Photographs, count: int) -> Tensor:
    return torch.cat([batch["image"] for batch in batches(data, count)])


def at(data: Photographs, step: int = 0, accumulate: int = 1, rank: int = 0, ranks: int = 1) -> Photographs:
    """The data module of a trainer that has made ``step`` optimizer steps."""
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_step=step, accumulate_grad_batches=accumulate, global_rank=rank, world_size=ranks
    )
    return data


@pytest.fixture(params=["folder", "stream", "generated"])
def make(request: pytest.FixtureRequest, shades: Path, shards: Path) -> Callable[..., Photographs]:
    """A data module over each kind of source."""

    def build(**options: Any) -> Photographs:
        sources: dict[str, Callable[[], Source]] = {
            "folder": lambda: folder(shades),
            "stream": lambda: parquet(str(shards), streaming=True),
            "generated": lambda: Generated(48),
        }
        return photographs_of(sources[request.param](), **{"buffer": 4, **options})

    return build


# --- (seed, position) decides, and nothing else -----------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_the_sequence_is_the_same_for_any_number_of_workers(photographs: Path, shards: Path, workers: int) -> None:
    """With the photographs, whose crops differ; the stream is read in the main process and cropped by workers."""
    for source in (folder(photographs), parquet(str(shards), streaming=True)):
        alone = images(photographs_of(source, buffer=4), 6)
        torch.testing.assert_close(images(photographs_of(source, buffer=4, workers=workers), 6), alone, rtol=0, atol=0)


def test_a_run_that_starts_at_a_step_goes_on_with_the_batches_it_would_have_met(
    make: Callable[..., Photographs],
) -> None:
    whole = images(make(), 6)
    for step in (1, 4):  # an epoch has 11 pictures, so it ends in batch 2
        torch.testing.assert_close(images(at(make(), step), 6 - step), whole[4 * step :], rtol=0, atol=0)
    # Two batches go into each step here, so step 2 begins with batch 4.
    torch.testing.assert_close(images(at(make(), 2, accumulate=2), 2), whole[4 * 4 :], rtol=0, atol=0)


def test_ranks_share_each_global_batch_without_overlap(make: Callable[..., Photographs]) -> None:
    whole = images(make(batch_size=6), 3).unflatten(0, (3, 6))
    for rank in range(3):
        part = images(at(make(batch_size=2), rank=rank, ranks=3), 3).unflatten(0, (3, 2))
        torch.testing.assert_close(part, whole[:, 2 * rank : 2 * rank + 2], rtol=0, atol=0)


def test_a_seed_gives_one_sequence_and_another_seed_another(make: Callable[..., Photographs]) -> None:
    first, again, other = (images(make(seed=seed), 4) for seed in (3, 3, 4))
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert (other - first).abs().amax((1, 2, 3)).gt(0).float().mean() > 0.5


def test_batches_hold_images_in_the_projects_contract(make: Callable[..., Photographs]) -> None:
    batch = batches(make(size=36), 1)[0]
    assert batch["image"].shape == (4, 3, 36, 36)
    assert batch["image"].dtype == torch.float32
    assert 0 <= batch["image"].min() <= batch["image"].max() <= 1
    assert batch["image"].max() > 0.1  # not divided by 255 twice
    assert batch["unreadable"] == []


# --- epochs and what is held out --------------------------------------------------------------------


def test_every_picture_comes_once_per_epoch_though_no_batch_ends_with_one(shades: Path) -> None:
    data = photographs_of(folder(shades))
    held = set(shades_of(data.held_out_images))
    assert len(held) == 2
    used = sorted(set(range(SHADES)) - held)
    seen = shades_of(images(data, 11))  # 44 pictures: 4 epochs of 11
    epochs = [seen[first : first + 11] for first in range(0, 44, 11)]
    for epoch in epochs:
        assert sorted(epoch) == used
    assert len({tuple(epoch) for epoch in epochs}) == 4  # each in an order of its own


def test_every_streamed_picture_comes_once_per_epoch_but_for_the_first_which_are_held_out(shards: Path) -> None:
    data = photographs_of(parquet(str(shards), streaming=True), held_out=3, buffer=4)
    assert shades_of(data.held_out_images) == [0, 1, 2]
    seen = shades_of(images(data, 10))  # 40 pictures: 4 epochs of 10
    epochs = [seen[first : first + 10] for first in range(0, 40, 10)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(3, 13))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_crops_of_a_picture_differ_between_epochs(photographs: Path, tmp_path: Path) -> None:
    files = sorted(photographs.iterdir())
    write_parquet(tmp_path / "a.parquet", [{"path": file.name, "bytes": file.read_bytes()} for file in files])
    for source in (folder(photographs), parquet(str(tmp_path / "a.parquet"), streaming=True)):
        first, second = (batch["image"] for batch in batches(photographs_of(source, held_out=0, batch_size=12), 2))
        assert not any(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a in first for b in second)


@pytest.mark.parametrize(("asked", "kept"), [(0, 0), (1, 1), (2, 2), (32, 2)])
def test_at_most_a_fifth_of_the_photographs_is_held_out(shades: Path, asked: int, kept: int) -> None:
    data = photographs_of(folder(shades), held_out=asked)
    assert data.held_out_images.shape == (kept, 3, 32, 32)
    assert len(set(shades_of(images(data, 13)))) == SHADES - kept


def test_held_out_pictures_are_the_same_central_crops_every_time(
    shades: Path, make: Callable[..., Photographs]
) -> None:
    data = make()
    seen = torch.cat([batch["image"] for batch in data.val_dataloader()])
    torch.testing.assert_close(seen, data.held_out_images, rtol=0, atol=0)
    torch.testing.assert_close(make().held_out_images, seen, rtol=0, atol=0)
    assert len(seen) == 2


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions of all generated pictures, as they are asked for."""
    positions: list[int] = []
    picture = Generated.picture

    def spy(self: Generated, seed: int, position: int) -> Image.Image:
        positions.append(position)
        return picture(self, seed, position)

    monkeypatch.setattr(Generated, "picture", spy)
    return positions


def test_generated_held_out_pictures_lie_where_no_training_comes(drawn: list[int]) -> None:
    data = photographs_of(Generated(32))
    assert not drawn  # before it is set up
    data.setup()
    assert len(set(drawn)) == 2
    assert min(drawn) > 10**15
    drawn.clear()
    batches(data, 5)
    assert drawn == list(range(20))


def test_generated_pictures_never_end() -> None:
    data = at(photographs_of(Generated(32)), step=10**12)
    assert images(data, 2).std() > 0


def test_a_stream_with_nothing_beyond_the_held_out_rows_is_empty(shards: Path) -> None:
    data = photographs_of(parquet(str(shards), streaming=True), held_out=SHADES)
    with pytest.raises(DataError, match="no pictures beyond the 13 that are held back"):
        batches(data, 1)


def test_a_stream_that_breaks_off_says_so(shards: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(shards, tmp_path / "shards"))
    for shard in ("1.parquet", "2.parquet"):
        (path / shard).write_bytes(b"PAR1, but nothing that should follow")
    for held_out in (0, 2):  # the rows held out are read before all others
        with pytest.raises(DataError, match=r"the stream broke off: .+"):
            batches(photographs_of(parquet(str(path), streaming=True), buffer=2, held_out=held_out), 10)


# --- calibration ------------------------------------------------------------------------------------


def test_calibration_measures_the_first_training_crops_wherever_the_run_is(shades: Path) -> None:
    first = images(photographs_of(folder(shades)), 5)
    for count in (2, 8, 12, 16):
        data = at(photographs_of(folder(shades)), step=7)
        torch.testing.assert_close(torch.cat(list(data.calibration_batches(count))), first[:count], rtol=0, atol=0)


@pytest.mark.parametrize("count", [-1, 0, 1])
def test_calibration_on_fewer_than_two_photographs_is_refused(shades: Path, count: int) -> None:
    with pytest.raises(DataError, match=f"at least 2 photographs; found {count}"):
        list(photographs_of(folder(shades)).calibration_batches(count))


# --- crops ------------------------------------------------------------------------------------------


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


# --- files ------------------------------------------------------------------------------------------


def halves(mode: str, left: Any, right: Any) -> Image.Image:
    """64 × 64 of two colours."""
    picture = Image.new(mode, (64, 64), left)
    picture.paste(right, (32, 0, 64, 64))
    return picture


def whole(path: Path) -> Tensor:
    """Half of the training crops are mirrored, all of them are the whole picture: the mean over a few."""
    data = photographs_of(folder(path), held_out=0, scale=(1.0, 1.0), batch_size=1)
    return images(data, 6).mean(0) * 255


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


# --- unreadable pictures ----------------------------------------------------------------------------


@pytest.fixture
def damaged(shades: Path, tmp_path: Path) -> tuple[Path, int]:
    """The shades with one cut off in the middle, and which."""
    path = Path(shutil.copytree(shades, tmp_path / "damaged"))
    bad = next(i for i in shades_of(images(photographs_of(folder(shades)), 2)))
    data = (path / f"{bad:02d}.png").read_bytes()
    (path / f"{bad:02d}.png").write_bytes(data[: len(data) // 2])
    return path, bad


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


# --- refusals ---------------------------------------------------------------------------------------


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(DataError, match="the data set is empty"):
        photographs_of(datasets.Dataset.from_dict({"image": []}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 31}, "size is 31"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"workers": -1}, "workers -1"),
        ({"scale": (0.0, 1.0)}, r"scale is \(0.0, 1.0\); expected two shares"),
        ({"scale": (0.8, 0.6)}, r"scale is \(0.8, 0.6\)"),
        ({"scale": (0.5, 1.1)}, r"scale is \(0.5, 1.1\)"),
        ({"held_out": -1}, "held_out is -1"),
        ({"buffer": 0}, "buffer 0"),
        ({"max_unreadable": 1.5}, "max_unreadable 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        photographs_of(Generated(48), **options)


# --- pixels as they are, and styles -----------------------------------------------------------------


def test_without_a_scale_crops_are_pixels_as_they_are(astronaut: np.ndarray) -> None:
    whole = Image.fromarray(astronaut[:60, :80])
    for seed in range(20):
        crop = np.asarray(random_crop(whole, 48, None, np.random.default_rng(seed)))
        windows = np.lib.stride_tricks.sliding_window_view(astronaut[:60, :80], (48, 48), (0, 1)).transpose(
            0, 1, 3, 4, 2
        )
        assert any(np.array_equal(side, window) for side in (crop, crop[:, ::-1]) for row in windows for window in row)


def test_without_a_scale_a_small_picture_is_enlarged(astronaut: np.ndarray) -> None:
    small = Image.fromarray(astronaut[:20, :31])
    assert random_crop(small, 48, None, np.random.default_rng(0)).size == (48, 48)
    assert centre_crop(small, 48, None).size == (48, 48)


def test_without_a_scale_the_held_out_are_central_pixels(tmp_path: Path, astronaut: np.ndarray) -> None:
    for index in range(5):
        Image.fromarray(astronaut[index : 60 + index, :81]).save(tmp_path / f"{index}.png")
    data = photographs_of(folder(tmp_path), scale=None, held_out=1)
    (held,) = (np.asarray(image.mul(255).round()).astype(np.uint8).transpose(1, 2, 0) for image in data.held_out_images)
    assert any(np.array_equal(held, astronaut[i + 14 : i + 46, 24:56]) for i in range(5))


def test_a_style_goes_with_every_photograph_and_its_position_decides_which(shades: Path, shards: Path) -> None:
    def of(**options: Any) -> list[dict[str, Any]]:
        return batches(photographs_of(folder(shades), styles=folder(shades), **options), 4)

    first = of()
    assert first[0]["style"].shape == first[0]["image"].shape == (4, 3, 32, 32)
    taken = [shade for batch in first for shade in shades_of(batch["style"])]
    assert len(set(taken)) > 5
    assert taken != [shade for batch in first for shade in shades_of(batch["image"])]
    for again in (of(), of(workers=2)):
        assert all(torch.equal(a["style"], b["style"]) for a, b in zip(first, again, strict=True))
    assert shades_of(of(batch_size=8)[0]["style"]) == taken[:8]


def test_held_out_photographs_have_styles_too(shades: Path) -> None:
    data = photographs_of(folder(shades), styles=folder(shades), batch_size=2)
    one, other = (next(iter(data.val_dataloader())) for _ in range(2))
    assert one["style"].shape == (2, 3, 32, 32)
    assert torch.equal(one["style"], other["style"])


def test_streamed_photographs_have_styles_too(shades: Path, shards: Path) -> None:
    data = photographs_of(parquet(str(shards / "*.parquet"), streaming=True), styles=folder(shades))
    assert batches(data, 1)[0]["style"].shape == (4, 3, 32, 32)


def test_styles_that_cannot_be_indexed_are_refused(shades: Path, shards: Path) -> None:
    with pytest.raises(DataError, match="style pictures cannot be indexed"):
        photographs_of(folder(shades), styles=parquet(str(shards / "*.parquet"), streaming=True))
