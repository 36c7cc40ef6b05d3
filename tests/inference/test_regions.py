"""A style where a mask is white, and another one, or the photograph, elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fststyle.images import to_image
from fststyle.inference import StylizeOptions, Stylizer, in_regions
from fststyle.inference.options import masked
from fststyle.inference.regions import Blended, OnePass
from fststyle.networks.transform import TransformNet

OPTIONS: list[dict[str, Any]] = [
    {},
    {"style_scale": 2.0},
    {"strength": 0.4},
    {"preserve_color": True, "median": True},
    {"style_scale": 1.5, "strength": 0.7, "preserve_color": True, "median": True},
]


def styles(shared: bool) -> tuple[Stylizer, Stylizer]:
    """Two styles, of one network or of two."""
    torch.manual_seed(0)
    network = TransformNet(width=4, residual_blocks=1, styles=2)
    with torch.no_grad():
        for name, value in network.style_parameters().items():
            value.copy_(0.4 * torch.randn_like(value) + (1 if name.endswith("weight") else 0))
    networks = [network.of_mixture(row) for row in torch.eye(2)]
    if not shared:
        networks[1] = TransformNet(width=4, residual_blocks=2)
    first, second = (Stylizer(each, device="cpu", precision="float32") for each in networks)
    return first, second


@pytest.fixture
def photo(astronaut: np.ndarray) -> np.ndarray:
    return astronaut[:150, :131]


@pytest.fixture
def mask(photo: np.ndarray) -> np.ndarray:
    """White in a circle, 255; grey, 128, in a corner."""
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    mask = (np.hypot(y - 60, x - 50) < 40).astype(np.uint8) * 255
    mask[130:, 100:] = 128
    return mask


def regions(shared: bool, mask: np.ndarray, elsewhere: bool = True, feather: float | None = None) -> Stylizer:
    first, second = styles(shared)
    made = in_regions(first, mask, second if elsewhere else None, feather)
    assert isinstance(made, OnePass if shared and elsewhere else Blended)
    return made


KINDS = [(True, True), (False, True), (False, False)]


@pytest.mark.parametrize("white", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_style_that_has_all_is_that_style(
    shared: bool, white: bool, options: dict[str, Any], photo: np.ndarray
) -> None:
    mask, how = np.full(photo.shape[:2], 255 if white else 0, np.uint8), StylizeOptions(**options)
    expected = styles(shared)[0 if white else 1].pixels(photo, how)
    assert np.array_equal(regions(shared, mask).pixels(photo, how), expected)


@pytest.mark.parametrize(("shared", "elsewhere"), KINDS)
@pytest.mark.parametrize(("options", "dtype"), [*((each, np.uint8) for each in OPTIONS), (OPTIONS[-1], np.uint16)])
def test_strips_give_the_whole(
    shared: bool, elsewhere: bool, options: dict[str, Any], dtype: type, photo: np.ndarray, mask: np.ndarray
) -> None:
    stylizer, how, picture = regions(shared, mask, elsewhere), StylizeOptions(**options), photo.astype(dtype)
    picture = picture * dtype(257 if dtype == np.uint16 else 1)
    whole = stylizer.pixels(picture, how)
    away = whole.astype(int) - stylizer.pixels(picture, how, memory=0)
    assert whole.dtype == dtype
    assert np.abs(away).max() <= (1 if dtype == np.uint8 else 257)
    assert np.mean(away != 0) < (0.001 if dtype == np.uint8 else 0.1)


@pytest.mark.parametrize("shared", [True, False])
def test_both_styles_are_where_they_should_be(shared: bool, photo: np.ndarray, mask: np.ndarray) -> None:
    """Moments are those of the whole picture, so of one network a style is near its own result, not equal to it."""
    mask[130:, 100:] = 0
    output = regions(shared, mask).pixels(photo).astype(int)
    within, elsewhere = (np.abs(output - each.pixels(photo)).mean(2) for each in styles(shared))
    print(
        within[mask == 255].mean(), elsewhere[mask == 255].mean(), elsewhere[mask == 0].mean(), within[mask == 0].mean()
    )
    most = 0.8 if shared else 0.1
    assert within[mask == 255].mean() < most * elsewhere[mask == 255].mean()
    assert elsewhere[mask == 0].mean() < most * within[mask == 0].mean()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_blended_results_are_exact_away_from_edges(elsewhere: bool, photo: np.ndarray, mask: np.ndarray) -> None:
    mask[130:, 100:] = 0
    output = regions(False, mask, elsewhere, feather=3).pixels(photo)
    first, second = (each.pixels(photo) for each in styles(False))
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    distance = np.hypot(y - 60, x - 50)
    assert np.array_equal(output[distance < 34], first[distance < 34])
    assert np.array_equal(output[distance > 46], (second if elsewhere else photo)[distance > 46])


@pytest.mark.parametrize(("shared", "elsewhere"), KINDS)
def test_there_is_no_seam(shared: bool, elsewhere: bool, photo: np.ndarray) -> None:
    """Across a straight edge of the mask, steps between columns are those of the pictures on both sides, and at most a
    quarter of the difference between these; without soft edges it is most of it, unless a network softens them itself.
    """
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[:, 65:] = 255
    first, second = (each.pixels(photo).astype(int) for each in styles(shared))
    both = (first, second if elsewhere else photo.astype(int))
    difference = np.abs(both[0] - both[1])[:, 60:70].mean()

    def steps(picture: np.ndarray) -> np.ndarray:
        return np.abs(np.diff(picture.astype(int), axis=1)).mean((0, 2))[50:80]

    def step(feather: float) -> float:
        output = regions(shared, mask, elsewhere, feather).pixels(photo)
        return float((steps(output) - np.maximum(*map(steps, both))).max() / difference)

    assert step(8) <= 0.25
    assert shared or step(0) > 0.5


def test_a_gradient_is_seen_in_the_result(photo: np.ndarray) -> None:
    """Grey is a mixture: in the middle of a gradient the result is neither style."""
    mask = np.linspace(0, 255, photo.shape[1]).round().astype(np.uint8)[None].repeat(len(photo), 0)
    for shared in (True, False):
        output = regions(shared, mask, feather=0).pixels(photo).astype(int)
        first, second = (each.pixels(photo).astype(int) for each in styles(shared))
        middle = slice(60, 70)
        for style in (first, second):
            assert np.abs(output - style)[:, middle].mean() > 3


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.9])
def test_an_even_mask_blends_as_the_strength_does(strength: float, photo: np.ndarray) -> None:
    stylizer, _ = styles(False)
    level = round(255 * strength)
    output = in_regions(stylizer, np.full(photo.shape[:2], level, np.uint8), feather=0).pixels(photo)
    expected = stylizer.pixels(photo, StylizeOptions(strength=level / 255))
    assert np.abs(output.astype(int) - expected).max() <= 1


def test_bands_of_a_blend_give_the_whole(photo: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    other = photo[::-1]

    def blended() -> np.ndarray:
        return np.concatenate(list(masked(lambda top, end: photo[top:end], lambda top, end: other[top:end], mask)))

    whole = blended()
    monkeypatch.setattr("fststyle.inference.options.BAND", 7)
    assert np.abs(whole.astype(int) - blended()).max() <= 1


@pytest.mark.parametrize(("shared", "elsewhere"), KINDS)
def test_images_as_tensors_give_the_same(shared: bool, elsewhere: bool, photo: np.ndarray, mask: np.ndarray) -> None:
    stylizer, image = regions(shared, mask, elsewhere), to_image(photo)
    for median in (False, True):
        output = stylizer(torch.cat([image, image.flip(3)]), median)
        assert output.shape == (2, *image.shape[1:])
        expected = to_image(stylizer.pixels(photo, StylizeOptions(median=median)))
        assert (output[:1] - expected).abs().max() <= 1.5 / 255


@pytest.mark.parametrize(("shared", "elsewhere"), KINDS)
def test_pictures_of_another_size_are_refused(
    shared: bool, elsewhere: bool, photo: np.ndarray, mask: np.ndarray
) -> None:
    stylizer = regions(shared, mask, elsewhere)
    for other in (photo[:-1], photo[:, :-1], photo.transpose(1, 0, 2)):
        for apply in (stylizer.pixels, lambda rgb: stylizer(to_image(rgb))):
            with pytest.raises(ValueError, match="the mask 131×150; expected the same size"):
                apply(other)
