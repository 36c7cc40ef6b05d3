"""Which photographs come, in which order; and which are held out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from fststyle.training.crops import centre_crop, random_crop
from fststyle.training.data import Photographs
from fststyle.training.sources import DataError, Generated, Source, folder, parquet
from shades import SHADES, batches, images, photographs_of, shades_of, write_parquet


@pytest.fixture(scope="module")
def shards(shades: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shades as three parquet files; their rows are shades 0-4, 5-9 and 10-12."""
    path = tmp_path_factory.mktemp("shards")
    files = sorted(shades.iterdir())
    for number, first in enumerate(range(0, SHADES, 5)):
        rows = [{"path": file.name, "bytes": file.read_bytes()} for file in files[first : first + 5]]
        write_parquet(path / f"{number}.parquet", rows)
    return path


@pytest.fixture(autouse=True)
def _no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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
