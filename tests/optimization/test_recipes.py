"""Recipes: which targets they take, where they start, and from coarse to fine."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fststyle.losses import PerceptualLoss
from fststyle.networks.pretrained import random_weights
from fststyle.networks.vgg import VGGEncoder
from fststyle.optimization import Optimization, optimize
from fststyle.optimization.recipes import (
    coarse_to_fine,
    content_reconstruction,
    resized,
    starting_image,
    texture,
    transfer,
)


def picture(seed: int, height: int = 32, width: int = 40) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_transfer_takes_a_painting_or_its_gram_matrices(encoder: VGGEncoder) -> None:
    loss = PerceptualLoss(encoder)
    photo, painting, image = picture(0), picture(1, 24, 24), picture(2)
    by_picture = transfer(loss, photo, painting)(image)
    by_grams = transfer(loss, photo, loss.style_targets(painting))(image)
    assert set(by_picture.content) == {"relu2_2"}
    assert set(by_picture.style) == {"relu1_2", "relu2_2", "relu3_3", "relu4_3"}
    assert by_picture.total.item() == by_grams.total.item()
    assert transfer(loss, photo, photo)(photo).total.item() == pytest.approx(0, abs=1e-9)


def test_texture_sees_no_content_and_reconstruction_no_style(encoder: VGGEncoder) -> None:
    loss = PerceptualLoss(encoder)
    source = picture(0)
    assert texture(loss, source)(picture(1, 16, 64)).content == {}
    terms = content_reconstruction(loss, source)(picture(1))
    assert terms.style == {}
    assert content_reconstruction(loss, source)(source).total.item() == 0


def test_reconstruction_finds_the_picture_again() -> None:
    wide = VGGEncoder(random_weights("vgg16", widths=(32, 4, 4, 4, 4)))
    loss = PerceptualLoss(wide, ["relu1_1"], [], style_weight=0)
    photo = resized(picture(0, 6, 8), (24, 32))
    start = starting_image("gray", (24, 32))
    found = optimize(start, content_reconstruction(loss, photo), 150).image
    assert (found - photo).abs().mean() < 0.2 * (start - photo).abs().mean()


# --- starts ---------------------------------------------------------------------------------------


def test_starts() -> None:
    photo, painting = picture(0), picture(1, 24, 24)
    assert torch.equal(starting_image("content", (32, 40), photo), photo)
    assert starting_image("style", (32, 40), photo, painting).shape == (1, 3, 32, 40)
    assert torch.equal(starting_image("gray", (20, 30)), torch.full((1, 3, 20, 30), 0.5))
    noise = starting_image("noise", (200, 300), deviation=0.1, seed=3)
    assert noise.mean().item() == pytest.approx(0.5, abs=2e-3)
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    assert torch.equal(noise, starting_image("noise", (200, 300), deviation=0.1, seed=3))
    assert not torch.equal(noise, starting_image("noise", (200, 300), deviation=0.1, seed=4))


@pytest.mark.parametrize("kind", ["zebra", "content", "style"])
def test_a_start_that_is_unknown_or_lacks_its_picture_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=f"start is '{kind}'; expected noise, gray, content, style or a picture file"):
        starting_image(kind, (32, 32))


# --- coarse to fine -------------------------------------------------------------------------------


def test_each_size_starts_from_the_result_before() -> None:
    seen = []

    def run(start: Tensor, stage: int) -> Optimization:
        seen.append((stage, tuple(start.shape[-2:]), start.mean().item()))
        return Optimization(image=torch.full_like(start, 0.25 * (stage + 1)), pixels=start)

    result = coarse_to_fine(torch.zeros(1, 3, 50, 50), [(20, 30), (40, 60)], run)
    assert seen[0] == (0, (20, 30), 0.0)
    assert seen[1][:2] == (1, (40, 60))
    assert seen[1][2] == pytest.approx(0.25, abs=1e-4)
    assert result.image.shape == (1, 3, 40, 60)


def test_an_interrupted_size_is_the_last() -> None:
    stages = []

    def run(start: Tensor, stage: int) -> Optimization:
        stages.append(stage)
        return Optimization(image=start, pixels=start, stopped="interrupted")

    assert coarse_to_fine(picture(0), [(20, 20), (40, 40)], run).stopped == "interrupted"
    assert stages == [0]


def test_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one size"):
        coarse_to_fine(picture(0), [], lambda start, stage: Optimization(start, start))
