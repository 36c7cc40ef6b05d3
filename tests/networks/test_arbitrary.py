"""A network for any painting: statistics of one, and what is predicted of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import to_image
from fststyle.networks.arbitrary import LEVELS, ArbitraryNet, fit_palette, statistics_layers, style_statistics
from fststyle.networks.transform import TransformNet


@pytest.fixture
def paintings(encoder: VGGEncoder) -> torch.Tensor:
    """Statistics of twelve pictures of different contrast and colour."""
    generator = torch.Generator().manual_seed(0)
    scale, shift = torch.rand(2, 12, 3, 1, 1, generator=generator)
    return style_statistics(encoder, (torch.rand(12, 3, 32, 40, generator=generator) * scale + shift) / 2)


@pytest.fixture
def made(paintings: torch.Tensor) -> ArbitraryNet:
    torch.manual_seed(0)
    network = ArbitraryNet(paintings.shape[1], components=5, width=4, residual_blocks=1, hidden=6)
    network.learn_components(paintings)
    for weight in network.predict.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network.eval()


def test_statistics_by_hand(encoder: VGGEncoder) -> None:
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    found = style_statistics(encoder, image)
    layers = statistics_layers(encoder)
    assert (layers[0], layers[-1]) == ("relu1_1", "relu4_3")
    features = encoder(image, layers)
    assert found.shape == (2, 3 * LEVELS + 9 + 2 * sum(value.shape[1] for value in features.values()))
    centred = image[1].flatten(1) - image[1].mean((1, 2))[:, None]
    covariance = 40 * (centred @ centred.T / centred.shape[1]).flatten()
    torch.testing.assert_close(found[1, 3 * LEVELS : 3 * LEVELS + 9], covariance)
    first = features["relu1_1"]
    torch.testing.assert_close(found[:, 3 * LEVELS + 9 :][:, : first.shape[1]], (first.mean((2, 3)) + 0.02).log())
    deepest = features["relu4_3"].flatten(2).std(-1, correction=0)
    torch.testing.assert_close(found[:, -deepest.shape[1] :], (deepest + 0.02).log())
    torch.testing.assert_close(style_statistics(encoder, image[1:]), found[1:], rtol=1e-4, atol=1e-4)


def test_components_have_a_variance_of_one_and_are_uncorrelated(made: ArbitraryNet, paintings: torch.Tensor) -> None:
    found = made.described(paintings).double()
    torch.testing.assert_close(found.mean(0), torch.zeros(5).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.T @ found / len(found), torch.eye(5).double(), atol=1e-3, rtol=0)


def test_fewer_paintings_than_components_leave_the_others_at_0(paintings: torch.Tensor) -> None:
    network = ArbitraryNet(paintings.shape[1], components=5, width=4, residual_blocks=0)
    network.learn_components(paintings[:3])
    assert network.described(paintings)[:, 2:].eq(0).all()
    assert network.described(paintings)[:, :2].ne(0).any()


def test_at_first_every_painting_gives_the_mean_of_the_styles(paintings: torch.Tensor) -> None:
    torch.manual_seed(0)
    several = TransformNet(width=4, residual_blocks=1, styles=3).eval()
    for value in several.style_parameters().values():
        torch.nn.init.normal_(value)
    network = ArbitraryNet.from_style(several, paintings.shape[1], 5).eval()
    network.learn_components(paintings)
    image = torch.rand(2, 3, 24, 32)
    torch.testing.assert_close(network(image, paintings[:2]), several(image, torch.full((1, 3), 1 / 3)))


def test_it_begins_with_a_network_that_ends_with_a_filter(paintings: torch.Tensor) -> None:
    filtered = TransformNet(width=4, residual_blocks=1, kuwahara=2.0).eval()
    network, image = ArbitraryNet.from_style(filtered, paintings.shape[1], 5).eval(), torch.rand(1, 3, 24, 32)
    network.learn_components(paintings)
    torch.testing.assert_close(network(image, paintings[:1]), filtered.with_kuwahara(0)(image))


def test_the_network_of_a_painting_paints_as_the_whole_does(made: ArbitraryNet, paintings: torch.Tensor) -> None:
    image = torch.rand(1, 3, 24, 32).expand(2, -1, -1, -1)
    both = made(image, paintings[3:5])
    assert (both[0] - both[1]).abs().max() > 0.01
    for number in (0, 1):
        alone = made.of_painting(paintings[3 + number : 4 + number])
        torch.testing.assert_close(alone(image[:1]), both[number : number + 1])


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match=r"statistics is 0, components 96, hidden 256; expected at least 1 each"):
        ArbitraryNet(0)
    with pytest.raises(ValueError, match="expected one like"):
        ArbitraryNet.from_style(TransformNet(width=4, norm="batch"), 10)


def test_a_palette_is_fitted_to_the_painting(astronaut: np.ndarray) -> None:
    torch.manual_seed(0)
    network = TransformNet(width=8, residual_blocks=1, colors=True).eval()
    photograph = to_image(astronaut[:160, 64:256].copy())
    painting = (torch.rand(1, 3, 64, 64) * torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1)).square()

    @torch.no_grad()
    def apart() -> float:
        """Of the means and deviations of the colours made and wanted."""
        made = network(photograph)
        return float(
            sum((f(made) - f(painting)).abs().sum() for f in (lambda x: x.mean((2, 3)), lambda x: x.std((2, 3))))
        )

    before, weights = apart(), {key: value.clone() for key, value in network.state_dict().items()}
    fit_palette(network, painting)
    assert apart() < before / 3
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, weights[key])}
    assert changed == {"colors.weight", "colors.bias"}
