"""Regions: norms that vary over the picture with masks, in networks that share their convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fststyle.inference.tiled import cost, evaluate_in_strips
from fststyle.networks.blocks import InstanceNorm
from fststyle.networks.regions import RegionNorm, share_convolutions, with_regions
from fststyle.networks.transform import TransformNet

VARIANTS: list[dict[str, Any]] = [
    {},
    {"padding": "zeros", "border": 16, "upsampling": "transposed", "output": "tanh"},
    {"upsampling": "nearest", "residual_blocks": 0, "colors": True},
    {"kuwahara": 2, "colors": True},
]


def styles(count: int = 2, **options: Any) -> list[TransformNet]:
    """Networks for one style each that share their convolutions."""
    torch.manual_seed(0)
    network = TransformNet(**{"width": 4, "residual_blocks": 2, **options}, styles=count)
    for name, value in network.style_parameters().items():
        with torch.no_grad():
            value.copy_(torch.randn_like(value) * 0.5 + (1 if name.endswith("weight") else 0))
    return [network.of_mixture(row).eval() for row in torch.eye(count)]


def halves(height: int, width: int) -> Tensor:
    """A mask, (1, 1, H, W): 0 on the left, 1 on the right, an edge of eight pixels."""
    return ((torch.arange(width) - width / 2) / 8 + 0.5).clamp(0, 1).expand(1, 1, height, width).contiguous()


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("number", [0, 1, 2])
@torch.no_grad()
def test_a_style_that_has_all_gives_its_own_result_exactly(options: dict[str, Any], number: int) -> None:
    networks, image = styles(3, **options), torch.rand(2, 3, 41, 54)
    masks = torch.zeros(1, 3, 41, 54)
    masks[:, number] = 1
    assert torch.equal(with_regions(networks, masks[:, 1:])(image), networks[number](image))
    assert not torch.equal(networks[0](image), networks[1](image))


@torch.no_grad()
def test_a_style_without_colors_shares_with_one_that_has_them() -> None:
    networks, image, mask = styles(colors=True), torch.rand(1, 3, 40, 56), halves(40, 56)
    for name, value in TransformNet(colors=True).colors.named_parameters():
        networks[0].colors.get_parameter(name).copy_(value)
    plain = TransformNet(**{**networks[0].config, "colors": False}).eval()
    plain.load_state_dict({k: v for k, v in networks[0].state_dict().items() if not k.startswith("colors.")})
    assert share_convolutions([plain, networks[1]])
    expected = with_regions(networks, mask)(image)
    assert torch.equal(with_regions([plain, networks[1]], mask)(image), expected)
    assert torch.allclose(with_regions([networks[1], plain], 1 - mask)(image), expected, atol=1e-5)


@torch.no_grad()
def test_every_norm_scales_and_shifts_by_the_mask_of_its_size() -> None:
    """Against the definition: what a plain norm of each style gives, weighed by the mask."""
    networks, mask, seen = styles(), halves(40, 56), []
    network = with_regions(networks, mask)
    for name, module in network.named_modules():
        if isinstance(module, RegionNorm):
            module.register_forward_hook(lambda _, x, out, name=name: seen.append((name, x[0], out)))
    network(torch.rand(1, 3, 40, 56))
    assert len(seen) == len([m for m in networks[0].modules() if isinstance(m, InstanceNorm)])
    for name, x, output in seen:
        share = torch.nn.functional.interpolate(mask, x.shape[2:], mode="area")
        first, second = (known.get_submodule(name)(x) for known in networks)
        torch.testing.assert_close(output, first * (1 - share) + second * share, rtol=1e-4, atol=1e-4)


def test_with_unpadded_blocks_the_mask_stays_over_the_picture() -> None:
    networks = styles(padding="zeros", border=16, upsampling="transposed")
    mask = torch.zeros(1, 1, 32, 64)
    mask[..., 32:] = 1
    norms = [module for module in with_regions(networks, mask).modules() if isinstance(module, RegionNorm)]
    assert [norm.inset for norm in norms] == [0, 0, 0, 4, 8, 12, 16, 16, 16]
    for norm in norms:
        shares = norm.masks.shares(0, 8, norm.stride, norm.inset, torch.float32)
        edge = int(shares[0, 1, 0].argmax())
        assert edge * norm.stride + norm.inset == 16 + 32  # of the padded picture


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("kind", [torch.uint8, torch.float64])
@pytest.mark.parametrize(("height", "width", "rows"), [(97, 64, 32), (41, 38, 4)])
def test_strips_give_the_whole_picture(
    options: dict[str, Any], kind: torch.dtype, height: int, width: int, rows: int
) -> None:
    image, mask = torch.rand(1, 3, height, width, dtype=torch.float64), torch.rand(1, 1, height, width).double()
    mask = (mask * 255).to(kind) if kind == torch.uint8 else mask
    network = with_regions([known.double() for known in styles(**options)], mask)
    with torch.no_grad():
        whole = network(image)
    strips = list(evaluate_in_strips(network, lambda top, bottom: image[:, :, top:bottom], height, width, rows))
    assert len(strips) > 1
    torch.testing.assert_close(torch.cat(strips, 2), whole, rtol=0, atol=1e-9)


def test_the_work_is_that_of_one_style() -> None:
    networks = styles()
    assert cost(with_regions(networks, halves(60, 80)), 60, 80) == cost(networks[0], 60, 80)


@torch.no_grad()
def test_levels_of_8_bits_and_shares_are_one() -> None:
    networks, image = styles(), torch.rand(1, 3, 40, 56)
    levels = (halves(40, 56) * 255).round().to(torch.uint8)
    by_levels, by_shares = (with_regions(networks, mask)(image) for mask in (levels, levels / 255))
    assert torch.allclose(by_levels, by_shares, atol=1e-5)


@torch.no_grad()
def test_nothing_is_shared_and_the_networks_stay_as_they_are() -> None:
    networks, image = styles(), torch.rand(1, 3, 40, 56)
    before = networks[0](image)
    network = with_regions(networks, halves(40, 56))
    for value in network.parameters():
        value.zero_()
    assert torch.equal(networks[0](image), before)


def test_networks_that_share_no_convolutions_are_told_apart() -> None:
    first, second = styles()
    assert share_convolutions([first, second])
    assert not share_convolutions([first, TransformNet(4, 2)])
    assert not share_convolutions([first, TransformNet(4, 1)])
    assert not share_convolutions([TransformNet(4, 2, norm="batch")] * 2)
    assert not share_convolutions([TransformNet(4, 2, styles=2)] * 2)
    assert not share_convolutions([first, torch.nn.Identity()])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="different convolutions"):
        with_regions([first, TransformNet(4, 2)], halves(40, 56))


@pytest.mark.parametrize("shape", [(1, 2, 40, 56), (40, 56), (2, 1, 40, 56)])
def test_masks_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        with_regions(styles(), torch.zeros(shape))


@pytest.mark.parametrize("size", [(40, 52), (44, 56), (32, 56)])
def test_pictures_of_another_size_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="another size"):
        with_regions(styles(), halves(40, 56))(torch.rand(1, 3, *size))
