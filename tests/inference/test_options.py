"""How strong a style is, whose colours it has, how large its strokes are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fststyle.color import with_luminance
from fststyle.images import to_image
from fststyle.inference import StylizeOptions, Stylizer, options
from fststyle.inference.options import PLAIN, blend, surroundings, with_luminance_of
from fststyle.networks.transform import TransformNet


@pytest.fixture
def stylizer() -> Stylizer:
    torch.manual_seed(0)
    return Stylizer(TransformNet(width=4, residual_blocks=1), device="cpu")


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_the_ends_are_exact(astronaut: np.ndarray, stylizer: Stylizer) -> None:
    photo = astronaut[:80, :90]
    plain = stylizer.pixels(photo)
    assert np.array_equal(stylizer.pixels(photo, StylizeOptions(strength=0)), photo)
    assert np.array_equal(stylizer.pixels(photo, StylizeOptions(strength=1)), plain)
    kept = stylizer.pixels(photo, StylizeOptions(strength=0, preserve_color=True, style_scale=2))
    assert np.array_equal(kept, photo)


def test_strength_is_continuous(astronaut: np.ndarray) -> None:
    photo, output = astronaut[:60, :60], astronaut[60:120, 60:120]
    for strength in (0.001, 0.3, 0.5, 0.999):
        step = blend(photo, output, strength).astype(int) - blend(photo, output, strength - 0.001)
        assert np.abs(step).max() <= 2


def test_a_blend_of_details_that_differ_keeps_their_contrast() -> None:
    photo, output = noise(0, 200, 200) // 2 + 64, noise(1, 200, 200) // 2 + 64
    half, faded = blend(photo, output, 0.5), (photo.astype(float) + output) / 2
    assert faded.std() < 0.75 * photo.std()  # the fog of a cross-fade
    assert 0.95 * photo.std() < half.std() < 1.05 * photo.std()
    assert abs(half.mean() - faded.mean()) < 1


def test_even_areas_and_equal_pictures_are_only_faded() -> None:
    even = [np.full((40, 40, 3), level, np.uint8) for level in (100, 200)]
    assert (blend(*even, 0.25) == 125).all()
    photo = noise(0, 50, 50)
    assert np.abs(blend(photo, photo, 0.4).astype(int) - photo).max() <= 1


def test_surroundings_are_means_with_borders_repeated() -> None:
    values, r = np.random.default_rng(0).random((40, 30, 2)).astype(np.float32), options.RADIUS
    padded = np.pad(values, ((r, r), (r, r), (0, 0)), mode="edge")
    means = surroundings(values)
    for y, x in ((0, 0), (20, 15), (39, 29), (5, 28)):
        np.testing.assert_allclose(means[y, x], padded[y : y + 2 * r + 1, x : x + 2 * r + 1].mean((0, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    "look", [{"strength": 0.4}, {"preserve_color": True}, {"median": True, "strength": 0.7, "preserve_color": True}]
)
def test_bands_give_the_whole(look: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    photo, output = noise(0, 150, 40), noise(1, 150, 40)
    how = StylizeOptions(**look)
    whole = how.finish(photo, output)
    monkeypatch.setattr(options, "BAND", 32)
    assert np.abs(how.finish(photo, output).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_luminance_is_the_results_and_colour_the_photographs(dtype: type) -> None:
    top = np.iinfo(dtype).max
    photo, output = (0.3 * top + 0.4 * np.random.default_rng(seed).random((30, 30, 3)) * top for seed in (0, 1))
    kept = with_luminance_of(photo.astype(dtype), output.astype(dtype))
    wanted = with_luminance(to_image(photo.astype(dtype)), to_image(output.astype(dtype)))
    assert kept.dtype == dtype
    np.testing.assert_allclose(kept / top, wanted[0].permute(1, 2, 0), atol=1 / 255)


def test_a_style_says_from_where_its_strokes_grow(astronaut: np.ndarray, network: TransformNet) -> None:
    photo = np.ascontiguousarray(astronaut[:128, :64])
    grown = Stylizer(network, {"grow_from": 32}, device="cpu", precision="float32")
    plain = Stylizer(network, {}, device="cpu", precision="float32")
    assert np.array_equal(grown.pixels(photo), plain.pixels(photo, StylizeOptions(style_scale=2)))
    assert np.array_equal(grown.pixels(photo, StylizeOptions(style_scale=1)), plain.pixels(photo))


def test_strokes_grow_with_the_style_scale(astronaut: np.ndarray, stylizer: Stylizer) -> None:
    """What the network sees is so much smaller, and no smaller than it takes."""
    assert StylizeOptions(style_scale=2).seen(100, 300) == (50, 150)
    assert StylizeOptions(style_scale=0.5).seen(100, 300) == (200, 600)
    assert StylizeOptions(style_scale=16).seen(32, 64) == (16, 32)
    assert StylizeOptions(style_scale=16).seen(16, 20) == (16, 20)
    assert StylizeOptions().seen(700, 1024) == (700, 1024)
    assert StylizeOptions().seen(2048, 1000) == (round(2048 / 2**0.5), round(1000 / 2**0.5))
    assert StylizeOptions().seen(1000, 4096) == (500, 2048)
    assert StylizeOptions().seen(640, 1280, grow_from=320) == (320, 640)
    photo = astronaut[:90, :70]
    large = stylizer.pixels(photo, StylizeOptions(style_scale=2))
    assert large.shape == photo.shape
    assert np.abs(large.astype(int) - stylizer.pixels(photo)).max() > 5


def test_sixteen_bits_stay_sixteen(astronaut: np.ndarray, stylizer: Stylizer) -> None:
    photo = astronaut[:50, :40]
    fine = stylizer.pixels(photo.astype(np.uint16) * 257, StylizeOptions(strength=0.5, preserve_color=True))
    assert fine.dtype == np.uint16
    assert np.abs(fine / 257 - stylizer.pixels(photo, StylizeOptions(strength=0.5, preserve_color=True))).max() < 3
    assert len(np.unique(fine % 257)) > 100  # it has levels between those of 8 bits


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"strength": 1.1}, "strength is 1.1"), ({"strength": -1}, "strength is -1"), ({"style_scale": 0}, "scale is 0")],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StylizeOptions(**wrong)  # type: ignore[arg-type]


def test_plain_looks_change_nothing() -> None:
    assert not PLAIN.changes
    assert PLAIN.halo == 0
    assert PLAIN.seen(33, 44) == (33, 44)
