"""The generalised Kuwahara filter on what a network gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle.kuwahara import DEVIATION, SECTORS, sector_kernels
from fststyle.mixtures import of_one_style
from fststyle.networks.blocks import KuwaharaFilter
from fststyle.networks.regions import share_convolutions, with_regions
from fststyle.networks.transform import TransformNet, in_common

LUMA = np.array([0.299, 0.587, 0.114])


def literally(image: np.ndarray, radius: float) -> np.ndarray:
    """Pixel by pixel and sector by sector, (H, W, 3)."""
    kernels = sector_kernels(radius)[:, 0].astype(np.float64)
    reach = kernels.shape[1] // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    made = np.empty_like(image)
    for y, x in np.ndindex(image.shape[:2]):
        window = padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
        light, weights, colors = window @ LUMA, [], []
        for kernel in kernels:
            mean = (kernel * light).sum()
            deviation = np.sqrt((kernel * (light - mean) ** 2).sum())
            weights.append(1 / (1 + (deviation / DEVIATION) ** 3))
            colors.append((kernel[..., None] * window).sum((0, 1)))
        made[y, x] = np.average(colors, axis=0, weights=weights)
    return made


def test_the_kernels_are_a_disc_in_overlapping_sectors() -> None:
    kernels = sector_kernels(2.5)
    assert kernels.shape == (SECTORS, 1, 11, 11)
    np.testing.assert_allclose(kernels.sum((1, 2, 3)), 1, rtol=1e-6)
    assert kernels[0, 0, 5, 6:].min() > 0
    assert kernels[0, 0, :, :5].max() == 0  # the first looks to the right
    np.testing.assert_allclose(kernels[2, 0], kernels[0, 0].T, atol=1e-7)
    total = kernels.sum(0)[0]
    np.testing.assert_allclose(total, total.T, atol=1e-6)


@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_it_is_the_definition(radius: float) -> None:
    image = torch.rand(1, 3, 17, 20, dtype=torch.float64)
    made = KuwaharaFilter(radius).double().eval()(image)
    wanted = literally(image[0].permute(1, 2, 0).numpy(), radius)
    np.testing.assert_allclose(made[0].permute(1, 2, 0), wanted, atol=2e-5)


def woven() -> tuple[Tensor, Tensor]:
    """Two even halves, (1, 3, 40, 40), and the same under a weave of 3 pixels."""
    halves = torch.tensor([[0.2, 0.3, 0.6], [0.8, 0.7, 0.3]]).T.repeat_interleave(20, 1)
    image = halves[None, :, None].expand(1, 3, 40, 40).contiguous()
    waves = torch.cos(torch.arange(40) * 2 * torch.pi / 3)
    return image, image + 0.03 * (waves[:, None] * waves)


def test_a_weave_goes_and_an_edge_stays() -> None:
    image, under_weave = woven()
    made = KuwaharaFilter(2.5).eval()(under_weave)
    inner = (..., slice(8, -8), slice(4, 16))
    assert (made - image)[inner].std() < 0.2 * (under_weave - image)[inner].std()
    across = made[0, 0, 20]
    assert across[20] - across[19] > 0.9 * 0.6  # all of the step is between two pixels
    assert torch.allclose(KuwaharaFilter(2.5).eval()(image), image, atol=6e-3)


def test_training_goes_without_it() -> None:
    network, image = TransformNet(4, 0, kuwahara=2.0), torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(network.train()(image), network.with_kuwahara(0).eval()(image))
        assert not torch.equal(network.eval()(image), network.with_kuwahara(0).eval()(image))
    assert network.state_dict().keys() == TransformNet(4, 0).state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_filtered_in_float32(dtype: torch.dtype) -> None:
    image = torch.rand(1, 3, 20, 20).to(dtype)
    made = KuwaharaFilter(2.0).to(dtype).eval()(image)
    assert made.dtype == dtype
    torch.testing.assert_close(made.float(), KuwaharaFilter(2.0).eval()(image.float()), rtol=0, atol=2e-2)


@torch.no_grad()
def test_each_style_has_its_share_of_it() -> None:
    network = TransformNet(4, 0, styles=3, kuwahara=2.0, smoothed=[1, 0, 0.5]).eval()
    mixtures, image = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0.5, 0]]), torch.rand(3, 3, 24, 24)
    made = network(image, mixtures)
    plain = network.with_kuwahara(0)(image, mixtures)
    assert torch.equal(made[1], plain[1])
    for mixture, one, wanted in zip(mixtures, image, made, strict=True):
        torch.testing.assert_close(network.of_mixture(mixture)(one[None])[0], wanted, rtol=0, atol=1e-4)
    assert [network.of_mixture(mixture).smoothed for mixture in mixtures] == [[1.0], [0.0], [0.5]]
    assert "kuwahara" not in network.of_mixture(mixtures[1]).config
    assert of_one_style(network.config, [0, 0.5, 0.5])["smoothed"] == [0.25]


def test_networks_get_in_common_what_one_of_them_has() -> None:
    several = TransformNet(4, 0, styles=2, colors=True, kuwahara=2.0, smoothed=[1, 0.5])
    networks, arguments = in_common([TransformNet(4, 0), several])
    assert arguments["styles"] == 3
    assert arguments["smoothed"] == [0.0, 1.0, 0.5]
    assert arguments["colors"]
    assert [network.smoothed for network in networks] == [[0.0], [1.0, 0.5]]
    with pytest.raises(ValueError, match=r"found Kuwahara filters of radius 2\.0 and 3\.0; expected one radius"):
        in_common([several, TransformNet(4, 0, kuwahara=3)])


@torch.no_grad()
def test_each_region_has_its_styles_share_of_it() -> None:
    several = TransformNet(4, 0, norm="instance", styles=2, kuwahara=2.0, smoothed=[1, 0]).eval()
    networks, image = [several.of_mixture(row) for row in torch.eye(2)], torch.rand(1, 3, 30, 50)
    assert share_convolutions(networks)
    mask = torch.zeros(1, 1, 30, 50)
    mask[..., 25:] = 1
    made = with_regions(networks, mask)(image)  # the styles' norms are still alike
    torch.testing.assert_close(made[..., :25], networks[0](image)[..., :25], rtol=0, atol=1e-5)
    torch.testing.assert_close(made[..., 25:], networks[1](image)[..., 25:], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kuwahara": -1}, "the filter's radius is -1.0; expected more than 0, at most 7 pixels"),
        ({"kuwahara": 8}, "the filter's radius is 8.0; expected more than 0, at most 7 pixels"),
        ({"kuwahara": 2, "smoothed": [2]}, r"the filter's shares are \[2\]; expected numbers from 0 to 1"),
        ({"kuwahara": 2, "smoothed": [1, 1]}, "smoothed has 2 numbers; expected one for each of 1 styles"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformNet(4, 0, **options)  # type: ignore[arg-type]
