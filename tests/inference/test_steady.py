"""Noise is averaged away where nothing moves, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest

from fststyle.inference.steady import SteadyInput


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_noise_goes_and_what_moves_stays(dtype: type[np.unsignedinteger]) -> None:
    rng, unit = np.random.default_rng(0), np.iinfo(dtype).max // 255
    apply, made, given = SteadyInput(), [], []
    for number in range(40):
        frame = np.full((40, 60, 3), 100, np.int64) + rng.integers(-1, 2, (40, 60, 3))
        frame[10:14, number : number + 4] = 200
        given.append((frame * unit).astype(dtype))
        made.append(apply(given[-1]))
        assert np.array_equal(made[-1][10:14, number : number + 4], given[-1][10:14, number : number + 4])
        if number:  # where it was is as it is now, too
            assert np.abs(made[-1][11:13, number - 1].astype(int) - given[-1][11:13, number - 1]).max() <= 4 * unit
    still = [np.stack(frames)[20:, 20:].astype(float).std(0).mean() for frames in (made, given)]
    assert still[0] < 0.45 * still[1]
    assert {frame.dtype for frame in made} == {np.dtype(dtype)}


def test_a_slow_fade_is_followed_within_the_level() -> None:
    apply = SteadyInput(4)
    for level in range(0, 200):
        frame = np.full((20, 20, 3), level, np.uint8)
        assert np.abs(apply(frame).astype(int) - frame).max() <= 4


def test_frames_of_another_size_begin_anew_and_levels_are_checked() -> None:
    apply = SteadyInput()
    apply(np.zeros((20, 20, 3), np.uint8))
    frame = np.full((16, 20, 3), 2, np.uint8)
    assert np.array_equal(apply(frame), frame)
    for level in (0, -1, 65, float("nan")):
        with pytest.raises(ValueError, match="expected a number above 0, up to 64"):
            SteadyInput(level)
