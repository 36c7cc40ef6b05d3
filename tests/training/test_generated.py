"""Generated pictures: reproducible, varied, and with the statistics of photographs."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from fststyle.training.generated import dead_leaves

SIZE = 128
GREY = np.array([0.299, 0.587, 0.114])


def draw(seed: int, size: int = SIZE) -> np.ndarray:
    return dead_leaves(size, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """(16, SIZE, SIZE, 3) in [0, 1]."""
    return np.stack([draw(seed) for seed in range(16)]) / 255


@pytest.mark.parametrize("size", [16, 17, 31, 64, 97])
def test_any_size_gives_an_rgb_picture_with_something_in_it(size: int) -> None:
    for seed in range(8):
        picture = draw(seed, size)
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 5


def test_smaller_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="size is 15; expected at least 16"):
        draw(0, 15)


@pytest.mark.slow
def test_a_seed_gives_one_picture_whatever_was_drawn_before_and_in_every_process() -> None:
    first, _, again = draw(1), draw(2), draw(1)
    np.testing.assert_array_equal(again, first)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(draw, 1).result(), first)


def test_seeds_and_successive_draws_differ() -> None:
    generator = np.random.default_rng(0)
    drawn = [draw(0), dead_leaves(SIZE, generator), dead_leaves(SIZE, generator), draw(1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    for a, b in [(0, 2), (0, 3), (2, 3)]:
        difference = np.abs(drawn[a].astype(int) - drawn[b])
        assert difference.mean() > 10


def test_spectrum_falls_as_that_of_photographs(pictures: np.ndarray) -> None:
    grey = pictures @ GREY
    power = np.abs(np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))) ** 2
    frequency = np.fft.fftfreq(SIZE, 1 / SIZE)  # in cycles per picture
    ring = np.hypot(frequency[:, None], frequency).round().astype(int).ravel()
    radial = np.bincount(ring, power.mean(axis=0).ravel()) / np.bincount(ring)
    cycles = np.arange(2, SIZE // 4)
    slope = np.polyfit(np.log(cycles), np.log(radial[cycles]), 1)[0]
    assert -2.6 < slope < -1.6


def test_light_and_contrast_are_those_of_photographs(pictures: np.ndarray) -> None:
    grey = pictures @ GREY
    means, deviations = grey.mean(axis=(1, 2)), grey.std(axis=(1, 2))
    assert 0.35 < means.mean() < 0.55
    assert 0.15 < deviations.mean() < 0.28
    assert means.std() > 0.05  # dark pictures and bright ones
    assert deviations.min() > 0.06
    assert (grey < 0.02).mean() < 0.05
    assert (grey > 0.98).mean() < 0.08


def test_colours_are_mostly_muted_and_vary_less_than_light(pictures: np.ndarray) -> None:
    chroma = pictures.max(axis=-1) - pictures.min(axis=-1)
    assert 0.08 < chroma.mean() < 0.25
    assert np.quantile(chroma, 0.99) > 0.4  # some are saturated
    grey = pictures @ GREY
    tint = (pictures - grey[..., None])[..., [0, 2]]
    assert tint.std(axis=(1, 2)).mean() < 0.6 * grey.std(axis=(1, 2)).mean()


def test_edges_stand_beside_smooth_areas(pictures: np.ndarray) -> None:
    steps = np.abs(np.diff(pictures @ GREY, axis=2))
    assert (steps > 0.1).mean() > 0.03
    assert (steps < 0.02).mean() > 0.3
    kurtosis = (steps**4).mean() / (steps**2).mean() ** 2
    assert kurtosis > 6  # of Gaussian steps: 3
