"""What a network must not do: checkerboards, flicker."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle import diagnostics
from fststyle.losses import checkerboard_loss, random_warp, stability_loss
from fststyle.networks.blocks import gaussian_blur


def test_the_checkerboard_loss_is_the_energy_of_the_mean_tile() -> None:
    tile = torch.arange(16.0).view(1, 1, 4, 4) / 16
    image = tile.repeat(2, 3, 16, 8)  # 64 × 32
    expected = float((tile - tile.mean()).square().mean())
    assert float(checkerboard_loss(image)) == pytest.approx(expected)
    assert float(checkerboard_loss(image + 0.3)) == pytest.approx(expected, rel=1e-4)
    blocks = image.repeat_interleave(4, 2).repeat_interleave(4, 3)  # of 4 pixels, which leave no more than noise
    assert float(checkerboard_loss(blocks)) < expected / 64
    assert float(checkerboard_loss(torch.rand(1, 3, 31, 40))) == 0, "less than a window"


def test_a_slope_is_no_checkerboard() -> None:
    down, across = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 64), indexing="ij")
    slope = torch.stack([down, across, 0.3 * down - 0.7 * across])[None]
    assert float(checkerboard_loss(slope)) == pytest.approx(0, abs=1e-12)
    assert diagnostics.checkerboard(slope) == pytest.approx(0, abs=1e-4)
    tile = 0.1 * torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    pattern = tile.repeat(1, 1, 24, 16)
    assert float(checkerboard_loss(slope + pattern)) == pytest.approx(float(checkerboard_loss(pattern)), rel=1e-3)


def test_the_checkerboard_loss_has_the_right_gradient() -> None:
    image = torch.rand(1, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(checkerboard_loss, image.requires_grad_(), fast_mode=True)


def shifted(right: float, down: float) -> Tensor:
    return torch.tensor([right, down]).view(1, 2, 1, 1).expand(1, 2, 5, 5)


def fine(image: Tensor) -> float:
    return float((image - gaussian_blur(image, 4.0)).square().mean())


def test_the_stability_loss_is_zero_for_pixelwise_networks_and_not_for_blocks() -> None:
    images = torch.rand(2, 3, 48, 40)

    def blocks(x: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(x, 4), scale_factor=4)

    assert float(stability_loss(torch.sqrt, images, images.sqrt(), shifted(1, 3))) < 1e-8
    outputs = blocks(images)
    moved = blocks(torch.roll(images, (-3, -1), (2, 3)))[:, :, 10:35, 10:29]
    each = (moved - outputs[:, :, 13:38, 11:30]).square().mean((1, 2, 3))
    expected = torch.stack(
        [one / (fine(output[None]) + 1e-5) for one, output in zip(each, outputs, strict=True)]
    ).mean()
    assert float(stability_loss(blocks, images, outputs, shifted(1, 3))) == pytest.approx(float(expected), rel=1e-3)
    assert float(stability_loss(blocks, images, outputs, shifted(4, 0))) == pytest.approx(0, abs=1e-6)


def test_noise_and_brightness_in_the_stability_loss_count_by_the_networks_slope() -> None:
    images = 0.25 + torch.rand(1, 3, 260, 260) / 2
    unit = fine(images) + 1e-5
    noisy = stability_loss(lambda x: 3 * x, images, 3 * images, shifted(2, 1), noise=0.01 * torch.randn_like(images))
    assert float(noisy) * (9 * fine(images) + 1e-5) == pytest.approx(9e-4, rel=0.05)
    brighter = stability_loss(torch.neg, images, -images, shifted(2, 1), gain=1.04)
    assert float(brighter) * unit == pytest.approx(float((0.04 * images).square().mean()), rel=0.05)


def test_warps_are_whole_shifts_or_smooth_and_bounded() -> None:
    rng = np.random.default_rng(0)
    warps, gains = zip(*(random_warp(rng) for _ in range(40)), strict=True)
    whole = [bool((warp == warp.round()).all() and warp.flatten(2).std(-1).max() == 0) for warp in warps]
    assert 10 < sum(whole) < 30
    reaches = [float(warp.abs().max()) for warp in warps]
    assert max(reaches) < 36
    assert 4 < sum(reach > 12 for reach in reaches) < 16  # as far as in ten frames
    assert all(0.95 <= float(gain) <= 1.05 for gain in gains)
    x = torch.linspace(0, 6, 96).sin()
    smooth = (x[:, None] * x).expand(1, 3, 96, 96) / 2 + 0.5
    bent = min((warp for warp, is_whole in zip(warps, whole, strict=True) if not is_whole), key=lambda w: w.abs().max())
    assert float(stability_loss(torch.square, smooth, smooth.square(), bent)) * fine(smooth.square()) < 1e-6
    still = stability_loss(lambda x: smooth.square(), smooth, smooth.square(), bent)  # strokes that do not move
    assert float(still) * fine(smooth.square()) > 1e-4
