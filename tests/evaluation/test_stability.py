"""Warping errors: exact for what moves with the picture, known values for what does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fststyle.evaluation import stability
from fststyle.evaluation.clips import SENSOR_NOISE, make_clips
from fststyle.images import ImageError, to_image

SIZE, COUNT = (72, 96), 12
CLIPS = make_clips(SIZE, COUNT)


def errors(name: str, frames: list[np.ndarray]) -> list[float]:
    return [float(np.sqrt(np.mean(each))) for each in stability.squared_errors(CLIPS[name], frames)]


@pytest.mark.parametrize("name", ["pan", "layer"])
def test_whole_pixels_are_followed_exactly(name: str, astronaut: np.ndarray) -> None:
    frames = CLIPS[name].frames(astronaut)
    assert (frames[0] != frames[1]).any()
    assert errors(name, frames) == [0, 0]
    assert errors(name, [255 - frame // 2 for frame in frames]) == [0, 0]  # whatever a pixel becomes


@pytest.mark.parametrize("name", ["zoom", "rotation"])
def test_what_needs_interpolation_is_followed_closely(name: str, astronaut: np.ndarray) -> None:
    frames = CLIPS[name].frames(astronaut)
    standing = [frames[0]] * COUNT
    assert max(errors(name, frames)) < 0.05
    assert errors(name, standing)[1] > 3 * errors(name, frames)[1]  # strokes that do not move with the scene


def test_noise_is_measured_as_it_is(astronaut: np.ndarray) -> None:
    grey = np.full_like(astronaut, 128)
    assert errors("noise", CLIPS["noise"].frames(grey)) == pytest.approx([SENSOR_NOISE * 2**0.5] * 2, rel=0.03)
    assert errors("still", CLIPS["still"].frames(grey)) == pytest.approx([(4 / 3) ** 0.5 / 255] * 2, rel=0.03)


@pytest.mark.parametrize("back", [1, 10])
def test_what_came_into_view_is_left_out(back: int) -> None:
    """Of the disc's clip: neither what it uncovers nor what it covers; all that it shows, and all beside it."""
    clip = CLIPS["layer"]
    discs = [clip._disc(number) for number in (11 - back, 11)]
    _, known = clip.warped(to_image(np.zeros((*SIZE, 3), np.uint8)), 11, back)
    assert not known[(discs[0] > 0) & (discs[1] == 0)].any()
    assert not known[(discs[1] > 0) & (discs[1] < 1)].any()
    assert known[8:-8, 8:-8][((discs[0] == 0) & (discs[1] == 0))[8:-8, 8:-8]].all()
    _, known = CLIPS["pan"].warped(to_image(np.zeros((*SIZE, 3), np.uint8)), 11, back)
    assert known[:, 8 : -8 - 3 * back][8 : -8 - back].all()
    assert not known[:, -8 - 3 * back :].any()


def test_methods_inputs_and_frames_made_elsewhere(tmp_path: Path, astronaut: np.ndarray) -> None:
    photos = {"a": astronaut, "b": astronaut[:, ::-1].copy()}
    clips = {name: CLIPS[name] for name in ("pan", "still")}
    shots = stability.shots_of(photos, clips)
    assert [folder.relative_to(tmp_path).as_posix() for folder in stability.write_clips(shots, tmp_path)] == [
        "a/pan", "b/pan", "a/still", "b/still"
    ]  # fmt: skip
    made = {"half": lambda: lambda rgb: rgb // 2}
    rows = list(stability.evaluate(shots, made, {"copies": tmp_path}))
    by = {(row.method, row.clip): row for row in rows}
    assert by["copies", "still"].short == by["input", "still"].short > 0
    assert by["half", "still"].long < by["input", "still"].long
    table = stability.lines(rows)
    assert table[0].split() == ["e_stab", "frames", "pan", "still", "mean"]
    assert [line.split()[:3] for line in table[1:3]] == [["input", "1", "0.0000"], ["input", "10", "0.0000"]]
    assert len(table) == 7
    (tmp_path / "b" / "still" / "0003.png").unlink()
    with pytest.raises(ImageError, match="has 11 pictures; expected the 12 frames"):
        list(stability.evaluate(shots, {}, {"copies": tmp_path}))
