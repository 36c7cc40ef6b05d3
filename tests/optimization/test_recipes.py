"""Recipes: which targets they take, where they start, and from coarse to fine."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import PerceptualLoss
from fststyle.networks import styleswap
from fststyle.optimization import Optimization, optimize
from fststyle.optimization.recipes import (
    coarse_to_fine,
    content_reconstruction,
    faster,
    pixel_range,
    resized,
    starting_image,
    swap,
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


def test_swap_asks_for_the_styles_patches_at_the_content_layers(encoder: VGGEncoder) -> None:
    loss = PerceptualLoss(encoder, ["relu2_2", "relu3_1"], [], style_weight=0, tv_weight=1e-6)
    photo, painting = picture(0), picture(1, 24, 28)
    objective = swap(loss, photo, painting)
    terms = objective(photo)
    assert set(terms.content) == {"relu2_2", "relu3_1"}
    assert terms.style == {}
    assert terms.tv is not None
    assert terms.content["relu3_1"] > 0.01
    features = encoder(photo, ["relu3_1"])["relu3_1"]
    target = styleswap.swap(features, encoder(painting, ["relu3_1"])["relu3_1"])
    expected = (features - target).square().mean()
    assert terms.content["relu3_1"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert swap(loss, photo, photo)(photo).content["relu3_1"].item() == pytest.approx(0, abs=1e-9)
    assert swap(loss, photo, painting, 2, 2)(photo).total.item() != terms.total.item()


def test_swap_is_lowered_by_the_papers_settings(encoder: VGGEncoder) -> None:
    loss = PerceptualLoss(encoder, ["relu3_1"], [], style_weight=0, tv_weight=1e-6)
    photo, painting = picture(0), picture(1, 24, 28)
    run = optimize(photo, swap(loss, photo, painting), 60, "adam", 0.05)
    assert run.best < 0.4 * run.trace[0]["total"]
    assert run.image.min() >= 0
    assert run.image.max() <= 1


def test_swap_refuses_what_has_no_patches(encoder: VGGEncoder) -> None:
    loss = PerceptualLoss(encoder, ["relu3_1"], [], style_weight=0)
    with pytest.raises(ValueError, match="the style's features are 4×4; expected at least 5×5 for patch=5"):
        swap(loss, picture(0), picture(1, 16, 16), patch=5)
    with pytest.raises(ValueError, match="no content layer with a weight"):
        swap(PerceptualLoss(encoder, [], ["relu1_2"]), picture(0), picture(1))


# --- starts ---------------------------------------------------------------------------------------


def test_starts() -> None:
    photo, painting = picture(0), picture(1, 24, 24)
    assert torch.equal(starting_image("content", (32, 40), photo), photo)
    assert starting_image("style", (32, 40), photo, painting).shape == (1, 3, 32, 40)
    recolored = starting_image("recolored", (32, 40), photo, painting)
    assert recolored.shape == photo.shape
    nearer = [(image.mean((0, 2, 3)) - painting.mean((0, 2, 3))).abs().max().item() for image in (recolored, photo)]
    assert nearer[0] < 0.2 * nearer[1]
    assert torch.equal(starting_image("gray", (20, 30)), torch.full((1, 3, 20, 30), 0.5))
    noise = starting_image("noise", (200, 300), deviation=0.1, seed=3)
    assert noise.mean().item() == pytest.approx(0.5, abs=2e-3)
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    assert torch.equal(noise, starting_image("noise", (200, 300), deviation=0.1, seed=3))
    assert not torch.equal(noise, starting_image("noise", (200, 300), deviation=0.1, seed=4))


@pytest.mark.parametrize("kind", ["zebra", "content", "style", "recolored"])
def test_a_start_that_is_unknown_or_lacks_its_picture_is_refused(kind: str) -> None:
    with pytest.raises(
        ValueError, match=f"start is '{kind}'; expected recolored, noise, gray, content, style or a picture"
    ):
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


def test_a_faster_objective_is_the_same_objective(encoder: VGGEncoder) -> None:
    loss = PerceptualLoss(encoder)
    objective = transfer(loss, picture(0), picture(1))
    assert faster(objective) is objective
    found = {}
    for name, evaluate in (("float32", objective), ("bfloat16", faster(objective, "bfloat16"))):
        image = picture(2).requires_grad_()
        total = evaluate(image).total
        total.backward()
        assert image.grad is not None
        assert total.dtype == image.grad.dtype == torch.float32
        found[name] = (total.item(), image.grad.flatten())
    assert found["bfloat16"][0] != found["float32"][0]
    assert found["bfloat16"][0] == pytest.approx(found["float32"][0], rel=0.03)
    assert torch.cosine_similarity(found["bfloat16"][1], found["float32"][1], dim=0) > 0.98
    with pytest.raises(ValueError, match="precision is 'int8'; expected float32 or bfloat16"):
        faster(objective, "int8")


def test_noise_lies_around_a_colour_and_a_range_is_each_channels_own() -> None:
    source = picture(0) * torch.tensor([0.2, 0.5, 1.0]).view(1, 3, 1, 1)
    noise = starting_image("noise", (64, 64), deviation=0.01, around=source)
    torch.testing.assert_close(noise.mean((2, 3)), source.mean((2, 3)), atol=2e-3, rtol=0)
    low, high = pixel_range(source)
    assert low.shape == high.shape == (1, 3, 1, 1)
    assert (source >= low).all()
    assert (source <= high).all()
    assert 0.15 < float(high[0, 0]) <= 0.2
