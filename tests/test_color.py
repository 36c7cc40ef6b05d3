"""Colours of one picture in another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle.color import match_color, match_histogram, with_luminance
from fststyle.images import to_image

LUMA = torch.tensor([0.299, 0.587, 0.114])


@pytest.fixture
def photo(astronaut: np.ndarray) -> Tensor:
    return to_image(astronaut[::8, ::8])


def narrow(seed: int, height: int, width: int) -> Tensor:
    """Colours well inside the unit cube, correlated, so that nothing has to be clamped."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.rand(3, 3, generator=generator) * 0.1 + 0.05 * torch.eye(3)
    noise = torch.randn(1, 3, height, width, generator=generator)
    return (0.5 + 0.5 * torch.einsum("ij,bjhw->bihw", mixing, noise)).clamp(0.05, 0.95)


def test_luminance_from_one_and_colour_from_the_other() -> None:
    image, other = narrow(0, 20, 30), narrow(1, 20, 30) * 0.2 + 0.4
    mixed = with_luminance(image, other)
    luma = [torch.einsum("c,bchw->bhw", LUMA, x) for x in (image, other, mixed)]
    torch.testing.assert_close(luma[2], luma[1], atol=1e-5, rtol=0)
    torch.testing.assert_close((mixed - luma[2]), (image - luma[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(with_luminance(image, image), image, atol=1e-5, rtol=0)


def test_luminance_takes_one_size() -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        with_luminance(narrow(0, 20, 30), narrow(1, 30, 20))


def test_matched_colours_have_the_targets_mean_and_covariance() -> None:
    image, target = narrow(0, 40, 50), narrow(1, 30, 20) * 0.5 + 0.25
    matched = match_color(image, target)
    assert matched.shape == image.shape
    a, b = matched.flatten(2)[0], target.flatten(2)[0]
    torch.testing.assert_close(a.mean(1), b.mean(1), atol=2e-3, rtol=0)
    torch.testing.assert_close(a.cov(correction=0), b.cov(correction=0), atol=2e-4, rtol=0)
    torch.testing.assert_close(match_color(image, image), image, atol=1e-4, rtol=0)


def test_matching_an_even_picture_is_sound() -> None:
    even = torch.full((1, 3, 8, 8), 0.3)
    assert torch.isfinite(match_color(even, narrow(0, 8, 8))).all()
    torch.testing.assert_close(match_color(narrow(0, 8, 8), even).mean((2, 3)), even.mean((2, 3)), atol=1e-2, rtol=0)


def test_matched_histograms_are_the_targets(photo: Tensor) -> None:
    target = photo.square().flip(-1)
    matched = match_histogram(photo, target)
    torch.testing.assert_close(matched.flatten(2).sort().values, target.flatten(2).sort().values)
    order = photo.flatten(2)[0, 0].argsort(stable=True)
    assert (matched.flatten(2)[0, 0][order].diff() >= 0).all(), "the order of the values was changed"


def test_histograms_of_another_size(photo: Tensor) -> None:
    matched = match_histogram(photo, torch.rand(1, 3, 5, 7) * 0.5)
    assert matched.shape == photo.shape
    assert matched.max() <= 0.5
