"""Broken networks each fail the probe that is meant for them, and every bundled style passes them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fststyle import diagnostics
from fststyle.images import to_image
from fststyle.model_file import all_styles, load_model_file
from fststyle.networks.transform import TransformNet

STYLES = all_styles()


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    from skimage import data as pictures

    return to_image(np.asarray(pictures.chelsea())[20:276, 100:356])


def seeded(seed: int = 0, **options: Any) -> TransformNet:
    torch.manual_seed(seed)
    return TransformNet(16, **options).eval()


class Planted(nn.Module):
    """A sound network, whose result is changed."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.change = seeded(), change

    def forward(self, image: Tensor) -> Tensor:
        return self.change(self.network(image))


def names(network: nn.Module, photograph: Tensor) -> set[str]:
    """The scores that are beyond their limits."""
    found = diagnostics.scores(network, photograph)
    assert set(found) == set(diagnostics.LIMITS)
    lines = diagnostics.faults(found)
    return {name for name in diagnostics.LIMITS if any(f"({name} is" in line for line in lines)}


def blot(image: Tensor) -> Tensor:
    image = image.clone()
    image[:, 0, 60:76, 40:56] = 1.0
    image[:, 1:, 60:76, 40:56] = 0.0
    return image


def banded(image: Tensor) -> Tensor:
    image = image.clone()
    image[..., :3] = 0.95
    return image


def weave(image: Tensor) -> Tensor:
    rows, columns = (torch.arange(side) % 4 for side in image.shape[-2:])
    return image + 0.15 * ((rows[:, None] + columns) % 4 == 0)


BROKEN: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "untrained transposed convolutions": ("checkerboard", lambda: seeded(upsampling="transposed")),
    "a weave": ("checkerboard", lambda: Planted(weave)),
    "zero padding": ("border", lambda: seeded(padding="zeros")),
    "a band along one side": ("border", lambda: Planted(banded)),
    "planted blobs": ("blobs", lambda: Planted(blot)),
    "a constant output": ("contrast", lambda: Planted(lambda x: torch.full_like(x, 0.4))),
    "one texture for every picture": ("response", lambda: Planted(lambda x: to_noise(x))),
    "one colour everywhere": ("colour", lambda: Planted(lambda x: to_noise(x))),
    "black and white only": ("saturation", lambda: Planted(lambda x: (x > x.mean()).float())),
}


def to_noise(image: Tensor) -> Tensor:
    return torch.rand(image.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_fails_its_probe(case: str, photograph: Tensor) -> None:
    score, make = BROKEN[case]
    assert score in names(make(), photograph)


def test_weights_that_are_not_finite_fail(photograph: Tensor) -> None:
    network = seeded()
    with torch.no_grad():
        network.encode[0].conv.conv.weight[0] = torch.nan
    assert "non_finite" in names(network, photograph)


def test_what_is_whole_passes(photograph: Tensor) -> None:
    assert names(seeded(), photograph) == set()


@pytest.mark.parametrize("style", STYLES)
def test_every_bundled_style_passes_every_probe(style: str, photograph: Tensor) -> None:
    assert names(load_model_file(STYLES[style], "style").network, photograph) == set()


def test_the_checkerboard_score_is_an_eighth_for_noise_and_one_for_a_pure_pattern() -> None:
    noise = torch.rand(1, 3, 272, 272, generator=torch.Generator().manual_seed(0))
    assert diagnostics.checkerboard(noise) == pytest.approx(1 / 8, rel=0.15)
    tile = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert diagnostics.checkerboard(tile.repeat(1, 1, 68, 68)) == pytest.approx(1, rel=0.1)
    assert diagnostics.checkerboard(tile.repeat(1, 1, 68, 68).repeat_interleave(2, 3)) < 0.8, "another period"


def test_windows_are_folded_to_their_mean_tile() -> None:
    tile = torch.arange(16.0).view(1, 1, 4, 4)
    image = tile.repeat(1, 1, 8, 16)  # 32 × 64: two windows
    folded = diagnostics.folded(image)
    assert folded.shape == (1, 1, 1, 4, 2, 4)
    for window in range(2):
        torch.testing.assert_close(folded[0, 0, 0, :, window], tile[0, 0] - 7.5)


def test_a_fault_is_told_with_what_was_found_and_expected() -> None:
    sound = {name: (1.0 if name in ("contrast", "colour", "response") else 0.0) for name in diagnostics.LIMITS}
    assert diagnostics.faults(sound) == []
    assert diagnostics.faults({**sound, "blobs": 99.0}) == ["spots (blobs is 99, expected at most 12)"]
    assert diagnostics.faults({**sound, "border": float("nan")})[0].startswith("bands along the border")
