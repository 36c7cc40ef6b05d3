"""Lightness that varies in even areas: where, how much, the same in strips, and whose default it is."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fststyle.images import save_image, to_image, to_pixels
from fststyle.images.files import read_header, read_picture
from fststyle.inference import StylizeOptions, Stylizer, variation
from fststyle.inference.files import apply_to_file
from fststyle.inference.options import FRAMES
from fststyle.inference.variation import varied, varied_rows
from fststyle.mixtures import mixture_metadata
from fststyle.networks.transform import TransformNet
from fststyle.octaves import NO_VARIATION, Variation


def even(height: int, width: int, level: int = 120) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_an_even_picture_varies_by_the_amount_and_in_lightness_alone() -> None:
    found = varied(even(500, 700), Variation(0.08)).astype(float)
    assert (np.ptp(found, axis=2) == 0).all()
    assert found.std() / 255 == pytest.approx(0.08, rel=0.15)
    assert found.mean() == pytest.approx(120, abs=4)
    steps = np.abs(np.diff(found, axis=0))
    assert np.median(steps) < 255 * 0.08 / 8  # smooth: pixels are like the next ones


@pytest.mark.parametrize("level", [0, 255])
def test_white_and_black_vary_too(level: int) -> None:
    """An overexposed sky would lose the lighter half of the noise."""
    found = varied(even(400, 400, level), Variation(0.1)).astype(float) / 255
    assert found.std() == pytest.approx(0.1, rel=0.25)
    assert 0.02 < abs(np.median(found) - level / 255) < 0.25


def test_texture_and_edges_stay(astronaut: np.ndarray) -> None:
    grain = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    assert np.array_equal(varied(grain, Variation()), grain)
    halves = np.concatenate([even(200, 100, 40), even(200, 100, 200)], axis=1)
    change = np.abs(varied(halves, Variation()).astype(int) - halves).mean((0, 2))
    assert change[96:104].max() == 0  # at the edge
    assert change[:40].mean() > 5
    change = np.abs(varied(astronaut, Variation()).astype(int) - astronaut)
    assert change[70:170, 180:270].mean() < change[:90, 300:400].mean() / 3  # the face, the wall behind


def test_nothing_is_nothing() -> None:
    picture = even(20, 30)
    assert varied(picture, NO_VARIATION) is picture

    def read(top: int, bottom: int) -> np.ndarray:
        return picture[top:bottom]

    assert varied_rows(read, 20, NO_VARIATION) is read


def test_the_noise_is_the_same_on_every_machine() -> None:
    numbers = variation._numbers()
    assert numbers.shape == (4, 128, 128)
    assert abs(float(numbers.mean())) < 0.01
    assert float(numbers.std()) == pytest.approx(3**-0.5, abs=0.01)  # uniform in [-1, 1]
    np.testing.assert_allclose(numbers[1, 2, 3:6], [-0.6763905, 0.6359214, 0.5069163], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("cuts", [(0, 301), (0, 1, 37, 100, 301), (*range(0, 301, 16), 301)])
def test_strips_give_the_whole(astronaut: np.ndarray, dtype: type, cuts: tuple[int, ...]) -> None:
    photo = astronaut[:301, :203].astype(dtype) * dtype(1 if dtype == np.uint8 else 257)
    read = varied_rows(lambda top, bottom: photo[top:bottom], len(photo), Variation())
    strips = np.concatenate([read(top, bottom) for top, bottom in itertools.pairwise(cuts)])
    whole = varied(photo, Variation())
    assert whole.dtype == strips.dtype == dtype
    assert np.abs(strips.astype(int) - whole).max() <= (1 if dtype == np.uint8 else 4)


def test_sixteen_bits_give_what_eight_give(astronaut: np.ndarray) -> None:
    fine = varied(astronaut.astype(np.uint16) * 257, Variation())
    assert np.abs(fine / 257 - varied(astronaut, Variation())).max() <= 0.51


def stylizer(network: TransformNet, metadata: dict[str, Any]) -> Stylizer:
    return Stylizer(network, metadata, device="cpu", precision="float32")


def test_a_style_says_how_much_unless_told(network: TransformNet, astronaut: np.ndarray) -> None:
    photo = np.ascontiguousarray(astronaut[:96, 300:400])
    asks, silent = stylizer(network, {"variation": {"amount": 0.1}}), stylizer(network, {})
    assert np.array_equal(asks.pixels(photo), silent.pixels(varied(photo, Variation())))
    assert np.array_equal(asks.pixels(photo), silent.pixels(photo, StylizeOptions(variation=0.1)))
    assert np.array_equal(asks.pixels(photo, StylizeOptions(variation=0)), silent.pixels(photo))
    assert np.array_equal(asks.pixels(photo, FRAMES), silent.pixels(photo))  # of videos
    assert not np.array_equal(asks.pixels(photo), silent.pixels(photo))
    fine = [photo.astype(np.uint16) * 257, photo[::-1].astype(np.uint16) * 257]  # images are not rounded on the way
    results = asks(torch.cat([to_image(each) for each in fine]))
    for each, result in zip(fine, results, strict=True):
        assert np.abs(to_pixels(result).astype(int) - asks.pixels(each) / 257).max() <= 1


@pytest.mark.parametrize(
    "found", ["much", 0.1, None, {"amount": -0.1}, {"amount": 2}, {"amount": "x"}, {"width": 0}, {"height": 3}]
)
def test_what_makes_no_sense_in_a_file_is_nothing(found: object, network: TransformNet) -> None:
    assert stylizer(network, {"variation": found}).variation == NO_VARIATION


def test_wider_marks_are_wider() -> None:
    fine, wide = (varied(even(600, 600), Variation(0.1, width)).astype(float)[..., 0] for width in (10, 20))
    assert np.abs(np.diff(wide, axis=0)).mean() < 0.7 * np.abs(np.diff(fine, axis=0)).mean()
    assert wide.std() == pytest.approx(fine.std(), rel=0.2)


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_files_of_any_size_give_what_pictures_in_memory_give(
    scale: float, network: TransformNet, astronaut: np.ndarray, tmp_path: Path
) -> None:
    photo, options = np.ascontiguousarray(astronaut[:150, 250:420]), StylizeOptions(style_scale=scale)
    save_image(photo, tmp_path / "a.png")
    style = stylizer(network, {"variation": {"amount": 0.1}})
    apply_to_file(
        style, tmp_path / "a.png", tmp_path / "b.png", read_header(tmp_path / "a.png"), options=options, memory=0
    )
    found = read_picture(tmp_path / "b.png").rgb
    assert np.abs(found.astype(int) - style.pixels(photo, options)).max() <= 1


@pytest.mark.parametrize("amount", [-0.1, 0.6])
def test_an_amount_that_cannot_be_is_refused(amount: float) -> None:
    with pytest.raises(ValueError, match=f"variation is {amount}; expected a number from 0 to 0.5"):
        StylizeOptions(variation=amount)


def test_a_mixture_varies_by_the_mean() -> None:
    network = {"class": "TransformNet", "arguments": {"styles": 2}}
    metadata = {"network": network, "styles": [{"name": "a", "variation": {"amount": 0.1, "width": 20}}, {"name": "b"}]}
    assert mixture_metadata(metadata, {"a": 1.0})["variation"] == {"amount": 0.1, "width": 20}
    assert mixture_metadata(metadata, {"a": 0.5, "b": 0.5})["variation"] == {"amount": 0.05, "width": 15}
    assert "variation" not in mixture_metadata(metadata, {"b": 1.0})
