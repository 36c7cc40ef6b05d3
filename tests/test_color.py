"""Colours of one picture in another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle.color import color_statistics, match_color, match_histogram, match_statistics, with_luminance
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


def test_statistics_match_as_the_picture_does_one_by_one_in_a_batch() -> None:
    images, target = torch.cat([narrow(0, 20, 30), narrow(2, 20, 30)]), narrow(1, 30, 20) * 0.5 + 0.25
    matched = match_statistics(images, color_statistics(target))
    for image, one in zip(images, matched, strict=True):
        torch.testing.assert_close(one, match_color(image[None], target)[0], atol=1e-4, rtol=0)


def test_symmetric_roots_of_colours_covariance() -> None:
    """Against the eigenvalues', also where colours lie on a line and where there is only one."""
    line = torch.linspace(0, 1, 100).double() * torch.tensor([0.2, 1.0, 0.1]).double()[:, None]
    for image in (narrow(3, 20, 20).double(), line[None, :, None], torch.full((1, 3, 4, 4), 0.5).double()):
        covariance = image.flatten(2)[0].cov(correction=0) + 1e-6 * torch.eye(3)
        values, vectors = torch.linalg.eigh(covariance)
        expected = vectors @ torch.diag(values.sqrt()) @ vectors.T
        torch.testing.assert_close(color_statistics(image)[0, 1:], expected, atol=1e-7, rtol=1e-5)


def test_a_nearly_grey_picture_is_not_given_loud_colours() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(1, 1, 20, 20, generator=generator) + 0.002 * torch.randn(1, 3, 20, 20, generator=generator)
    colourful = color_statistics(torch.rand(1, 3, 20, 20, generator=generator))
    matched = [match_statistics(grey, colourful, least) for least in (1e-6, 1e-3)]
    saturations = [(x.amax(1) - x.amin(1)).mean().item() for x in matched]
    assert saturations[1] < 0.2 < 0.3 < saturations[0]


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


def test_histogram_matching_keeps_a_grey_target_grey_and_its_values() -> None:
    torch.manual_seed(0)
    image, target = torch.rand(1, 3, 24, 20), torch.rand(1, 1, 24, 20).expand(-1, 3, -1, -1)
    matched = match_histogram(image, target)
    assert torch.equal(matched, matched[:, :1].expand_as(matched))
    torch.testing.assert_close(matched[0, 0].flatten().sort().values, target[0, 0].flatten().sort().values)
    assert not torch.equal(*match_histogram(image, torch.cat([target[:, :2], 1 - target[:, :1]], 1))[0, 1:])
