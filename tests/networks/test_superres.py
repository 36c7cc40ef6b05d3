"""SuperResNet, and the reduction that it undoes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fststyle.color import luminance
from fststyle.images import to_image, to_pixels
from fststyle.networks.blocks import gaussian_blur
from fststyle.networks.superres import SuperResNet, reduce

PAPER = {"norm": "batch", "padding": "zeros", "upsampling": "transposed", "output": "tanh", "skip": False}


@pytest.mark.parametrize(("scale", "parameters"), [(4, 401_859), (8, 438_915)])
def test_the_papers_networks_have_its_parameters(scale: int, parameters: int) -> None:
    network = SuperResNet(scale, **PAPER)  # type: ignore[arg-type]
    assert sum(weight.numel() for weight in network.parameters()) == parameters


@pytest.mark.parametrize("options", [{}, PAPER, {"norm": "instance", "upsampling": "nearest", "skip": False}])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_pictures_become_larger_by_the_scale(scale: int, options: dict[str, object]) -> None:
    network = SuperResNet(scale, width=3, residual_blocks=1, **options).eval()  # type: ignore[arg-type]
    assert network(torch.rand(2, 3, 16, 19)).shape == (2, 3, 16 * scale, 19 * scale)


def test_untrained_it_is_bicubic_interpolation() -> None:
    image = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(image, scale_factor=4.0, mode="bicubic")
    torch.testing.assert_close(SuperResNet(4, width=4)(image), expected)


def test_the_first_step_already_changes_it() -> None:
    """The last layer begins at zero; a gradient must reach it all the same."""
    network = SuperResNet(4, width=4)
    network(torch.rand(1, 3, 16, 16)).square().sum().backward()
    assert float(network.decode[-1].conv.weight.grad.abs().max()) > 0  # type: ignore[union-attr, operator]


def test_without_a_norm_a_place_depends_on_its_surroundings_alone() -> None:
    torch.manual_seed(0)
    network = SuperResNet(4, width=4, residual_blocks=1).double()
    torch.nn.init.normal_(network.decode[-1].conv.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    image = torch.rand(1, 3, 48, 48, dtype=torch.float64)
    other = image.clone()
    other[..., 40:] = 0
    with torch.no_grad():
        assert torch.equal(network(image)[..., :80], network(other)[..., :80])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": 3}, "scale is 3"),
        ({"scale": 1}, "scale is 1"),
        ({"width": 0}, "width is 0"),
        ({"padding": "none"}, "padding is 'none'"),
        ({"output": "sigmoid"}, "output is 'sigmoid'"),
        ({"output": "tanh"}, "skip=True"),
        ({"norm": "layer"}, "norm is 'layer'"),
    ],
)
def test_what_it_cannot_be_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SuperResNet(**options)  # type: ignore[arg-type]


def test_a_picture_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        SuperResNet(4, width=2)(torch.rand(1, 3, 15, 20))


# --- the reduction ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_without_blur_it_is_pillows_bicubic(scale: int, astronaut: np.ndarray) -> None:
    pixels = astronaut[:96, 64:192]
    expected = np.asarray(
        Image.fromarray(pixels).resize((128 // scale, 96 // scale), Image.Resampling.BICUBIC), dtype=int
    )
    assert np.abs(to_pixels(reduce(to_image(pixels), scale)) - expected).max() <= 1


def test_the_blur_is_a_gaussian() -> None:
    point = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    point[..., 15, 15] = 1
    blurred = gaussian_blur(point, 1.5)
    offsets = torch.arange(31) - 15
    assert float(blurred.sum()) == pytest.approx(1)
    assert float((blurred.sum((0, 1, 2)) * offsets**2).sum().sqrt()) == pytest.approx(1.5, rel=2e-3)
    assert float(blurred[..., 15, 17] / blurred[..., 15, 15]) == pytest.approx(math.exp(-0.5 * (2 / 1.5) ** 2))


def test_blur_comes_before_the_reduction() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(reduce(image, 4, 1.0), reduce(gaussian_blur(image, 1.0), 4))
    assert float(reduce(image, 4, 1.0).std()) < float(reduce(image, 4).std())


def test_an_even_picture_stays_what_it_is() -> None:
    even = torch.full((1, 3, 32, 64), 0.4)
    torch.testing.assert_close(reduce(even, 8, 1.0), even[..., :4, :8])


@pytest.mark.parametrize(("blur", "side", "told"), [(-1.0, 32, "blur is -1"), (0.0, 33, "multiples of 4")])
def test_what_cannot_be_reduced_is_refused(blur: float, side: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        reduce(torch.rand(1, 3, 32, side), 4, blur)


def test_luminance_lies_between_16_and_235() -> None:
    ends = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert (luminance(ends).flatten() * 255).tolist() == pytest.approx([16, 235])
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    assert float(luminance(red)) * 255 == pytest.approx(16 + 65.481)
