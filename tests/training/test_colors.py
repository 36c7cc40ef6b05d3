"""Contrast and saturation of a trained network, brought to those of its painting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle.images import to_image
from fststyle.networks.octaves import in_octaves
from fststyle.networks.transform import TransformNet
from fststyle.training.colors import match_colors, match_styles, spread


@pytest.fixture
def photographs(astronaut: np.ndarray) -> Tensor:
    return torch.cat([to_image(np.ascontiguousarray(astronaut[y : y + 48, y : y + 48])) for y in range(0, 400, 40)])


def test_the_spread_is_of_lightness_and_of_what_differs_from_it() -> None:
    grey = torch.tensor([0.25, 0.75])[None, None, None].expand(1, 3, 1, 2)
    torch.testing.assert_close(spread(grey), torch.tensor([0.5, 0.5, 0.5, 0.25, 0.0]))
    red = torch.tensor([[0.0, 0.5], [0.0, 0.0], [0.0, 0.0]])[None, :, None]
    away = 0.25 * (0.701**2 + 2 * 0.299**2) ** 0.5
    torch.testing.assert_close(spread(red), torch.tensor([0.25, 0.0, 0.0, 0.299 * 0.25, away]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("octaves", [1, 2])
@pytest.mark.parametrize("colors", [False, True])
def test_what_is_made_gets_the_paintings_colors(photographs: Tensor, colors: bool, octaves: int) -> None:
    torch.manual_seed(0)
    network = TransformNet(width=8, residual_blocks=1, colors=colors).eval()
    before = in_octaves(network, photographs, octaves)
    painting = spread(before) * torch.tensor([1.1, 0.95, 0.9, 1.1, 1.15])
    contrast, saturation = match_colors(network, painting, photographs, octaves)
    assert 1.05 < contrast < 1.25
    assert 1.1 < saturation < 1.25
    after = spread(in_octaves(network, photographs, octaves))
    torch.testing.assert_close(after[:3], painting[:3], atol=0.01, rtol=0)
    torch.testing.assert_close(after[3:], painting[3:], atol=0, rtol=0.03)


def test_no_painting_stretches_colors_beyond_reason(photographs: Tensor) -> None:
    network = TransformNet(width=4, residual_blocks=1).eval()
    wild = torch.tensor([0.5, 0.5, 0.5, 10.0, 0.0])
    torch.testing.assert_close(match_colors(network, wild, photographs), torch.tensor([1.25, 0.8]))


def test_each_of_several_styles_gets_its_own(photographs: Tensor) -> None:
    torch.manual_seed(0)
    network = TransformNet(width=8, residual_blocks=1, styles=2).eval()
    plain = spread(network.of_mixture(torch.tensor([1.0, 0]))(photographs))
    paintings = torch.stack([plain * torch.tensor([1, 1, 1, 1, 1.2]), plain * torch.tensor([1, 1, 1, 1.2, 1])])
    matched = match_styles(network, paintings, photographs)
    assert matched.config["colors"]
    for mixture, painting in zip(torch.eye(2), paintings, strict=True):
        torch.testing.assert_close(spread(matched.of_mixture(mixture)(photographs)), painting, atol=0.01, rtol=0.03)


def test_a_painting_without_spread_and_a_network_without_colors_are_no_error(photographs: Tensor) -> None:
    network = TransformNet(width=4, residual_blocks=1).eval()
    match_colors(network, spread(torch.full((1, 3, 8, 8), 0.5)), photographs)
    assert torch.isfinite(network(photographs)).all()
