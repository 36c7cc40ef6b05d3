"""The balanced loss, and what an encoder knows of photographs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import PerceptualLoss, block_colors, color_loss, measure_normalizers, measure_photographs
from loss_terms import PRESETS, build, check_known_normalizers, compute_loss, everything, knowing, photographs

# --- the balanced loss ----------------------------------------------------------------------------


def test_balanced_terms_of_other_photographs_average_about_one(
    encoder: VGGEncoder, astronaut: np.ndarray, painting: Tensor
) -> None:
    loss = build("balanced", encoder)
    style = loss.style_targets(painting)
    loss.normalizers = measure_normalizers(loss, photographs(astronaut, 0, 24).split(6), style)
    seen, others = photographs(astronaut, 1, 24), photographs(astronaut, 2, 24)
    terms = loss(seen, loss.content_targets(others), style).scalars()
    assert {"content/relu4_2", "style/pixels", "style/relu1_2", "style/relu4_3"} <= set(terms)
    for name in set(terms) - {"total", "tv"}:
        assert 0.6 < terms[name].item() < 1.6, name
    weights = loss.weights["content"] + loss.weights["style"]  # of terms that are about 1, averaged over layers
    assert 0.6 * weights < terms["total"].item() < 1.6 * weights


def test_a_balanced_loss_averages_over_layers(encoder: VGGEncoder, images: Tensor, painting: Tensor) -> None:
    loss = everything(
        encoder,
        content_layers=["relu1_2", "relu2_2"],
        style_layers={"relu1_2": 3.0, "relu2_2": 1.0},
        style_weight=10.0,
        balanced=True,
    )
    loss.normalizers = measure_normalizers(loss, [images], loss.style_targets(painting))
    t = {name: value.item() for name, value in compute_loss(loss, images, painting).items()}
    content = (t["content/relu1_2"] + t["content/relu2_2"]) / 2
    style = (3 * t["style/relu1_2"] + t["style/relu2_2"]) / 4
    assert t["total"] == pytest.approx(content + 10 * style + 1e-3 * t["tv"] + 0.5 * t["pixel"], rel=1e-6)


def test_normalizers_are_what_unstylised_photographs_cost_on_average(encoder: VGGEncoder) -> None:
    """Flat pictures with one brighter column: a step of h, up and down, over 20 rows and 3 channels."""
    heights = (0.1, 0.2, 0.4, 0.2, 0.6)
    pictures = torch.zeros(5, 3, 20, 24)
    for picture, height in zip(pictures, heights, strict=True):
        picture[:, :, 10] = height
    loss = PerceptualLoss(encoder, content_weight=0, style_weight=0, tv_weight=1, pixel_weight=1, balanced=True)
    # Batches of two and three; each picture's pixel target is another of its batch.
    normalizers = loss.normalizers = measure_normalizers(loss, [pictures[:2], pictures[2:]], {})
    variation = 2 * 60 * (0.01 + 0.04 + 0.16 + 0.04 + 0.36) / 5
    pixels = 60 / (3 * 20 * 24) * (0.01 + 0.01 + 0.04 + 0.16 + 0.04) / 5  # differences .1 .1 | .2 .4 .2
    assert normalizers == pytest.approx({"tv": variation, "pixel": pixels}, rel=1e-5)
    assert loss.normalizers == normalizers


def test_the_calibrated_photographs_themselves_cost_one(encoder: VGGEncoder, images: Tensor, painting: Tensor) -> None:
    loss = everything(encoder, balanced=True, style_form="mean")
    style = loss.style_targets(painting)
    loss.normalizers = measure_normalizers(loss, images.split(2), style)
    pairs = images[[1, 0, 3, 2]]
    terms = loss(images, loss.content_targets(pairs), style, pairs).scalars()
    terms.pop("total")
    assert len(terms) == 7
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(dict.fromkeys(terms, 1.0), rel=1e-5)


def test_colors_are_to_be_the_paintings_where_the_photographs_are(painting: Tensor) -> None:
    """A photograph with the painting's own colours is right as it is; block by block, pixels within one are free."""
    loss = PerceptualLoss(None, (), (), 0, 0, color_weight=2, balanced=True)
    style = loss.style_targets(painting)
    mean, root = style["color"][0, 0], style["color"][0, 1:]
    colors = painting[0].flatten(1)
    torch.testing.assert_close(mean, colors.mean(1))
    torch.testing.assert_close(root @ root, colors.cov(correction=0), atol=1e-5, rtol=1e-3)
    normalizers = loss.normalizers = measure_normalizers(loss, [painting.expand(2, -1, -1, -1)], style)
    assert normalizers == {"color": pytest.approx(2 * colors.var(1).mean().item(), rel=1e-2)}

    photograph = painting.flip(-1)  # 48 × 64
    wanted = loss.content_targets(photograph, style)
    assert wanted["color"].shape == (1, 3, 2, 2)
    assert loss(photograph, wanted).total.item() < 0.01
    shuffled = photograph.unflatten(3, (2, 32)).flip(4).flatten(3)
    assert not torch.equal(shuffled, photograph)
    torch.testing.assert_close(loss(shuffled, wanted).total, loss(photograph, wanted).total)
    darker = loss(photograph - 0.1, wanted).scalars()
    assert darker["color"].item() == pytest.approx(0.01 / normalizers["color"], rel=0.2)
    assert darker["total"].item() == pytest.approx(2 * darker["color"].item())
    tinted = photograph - 0.1 * torch.tensor([1.0, 0, -1])[:, None, None]  # the mean of channels is as it was
    assert loss(tinted, wanted).scalars()["color"].item() == pytest.approx(
        0.25 * 0.02 / 3 / normalizers["color"], rel=0.2
    )
    loss.hue_weight = 6.0  # 24 times as much
    assert loss(tinted, wanted).scalars()["color"].item() == pytest.approx(0.04 / normalizers["color"], rel=0.2)
    assert loss(photograph - 0.1, wanted).scalars()["color"].item() == pytest.approx(darker["color"].item(), rel=0.05)


def test_colors_of_each_photograph_of_a_batch_and_of_any_size(images: Tensor, painting: Tensor) -> None:
    loss = PerceptualLoss(None, (), (), 0, 0, color_weight=1)
    style = loss.style_targets(painting)
    batch = images[:, :, :33, :45]
    wanted = loss.content_targets(batch, style)["color"]
    assert wanted.shape == (len(batch), 3, 2, 2)
    for image, own in zip(batch, wanted, strict=True):
        torch.testing.assert_close(loss.content_targets(image[None], style)["color"][0], own, atol=1e-5, rtol=0)
    assert loss.content_targets(images[:1, :, :5, :7], style)["color"].shape == (1, 3, 1, 1)


@pytest.mark.parametrize("side", [32, 8])
@pytest.mark.parametrize("function", [color_loss, pytest.param(torch.compile(color_loss), marks=pytest.mark.slow)])
def test_blocks_at_the_edges_count_as_much_as_they_cover(function: Any, side: int) -> None:
    """48 rows: a block of 32 and one of 16; compiled as well, whose gradient of such means was wrong."""
    zero = torch.zeros(1, 3, -(-48 // side), 64 // side)
    image = torch.ones(1, 3, 48, 64)
    image[:, :, 32:] = 2
    pixels = image.clone().requires_grad_()
    loss = function(pixels, zero, 0.25, side)
    assert loss.item() == pytest.approx((32 + 16 * 4) / 48)
    loss.sum().backward()
    torch.testing.assert_close(pixels.grad, 2 * image / 3 / (48 * 64))


def test_complementary_fringes_count_in_blocks_smaller_than_they_are() -> None:
    """An edge that is red on one side and cyan on the other has the right mean; lightness stays in blocks of 32."""
    tint = torch.tensor([0.2, -0.1, -0.1])[:, None, None]
    fringes, checks = torch.full((1, 3, 32, 48), 0.5), torch.full((1, 3, 32, 48), 0.5)
    fringes[..., 8:16] += tint
    fringes[..., 16:24] -= tint
    checks[..., 8:16] += 0.1
    checks[..., 16:24] -= 0.1
    for side, expected in ((32, 0.0), (8, 60 * tint.square().mean().item() / 3)):
        target = block_colors(torch.full((1, 3, 32, 48), 0.5), side)
        assert color_loss(fringes, target, 60, side).item() == pytest.approx(expected, abs=1e-5)
        assert color_loss(checks, target, 60, side).item() == pytest.approx(0, abs=1e-5)
        assert color_loss(checks + 0.1, target, 60, side).item() == pytest.approx(0.01, rel=1e-3)


def test_without_a_style_there_is_no_color_term(encoder: VGGEncoder, images: Tensor, painting: Tensor) -> None:
    """As for a texture or a reconstruction, or model files of before."""
    loss = PerceptualLoss(encoder, color_weight=1)
    style = loss.style_targets(painting)
    assert "color" not in loss.content_targets(images)
    assert loss(images, style=style).color is None
    del style["color"]
    assert loss(images, loss.content_targets(images, style), style).color is None
    assert "color" not in PerceptualLoss(encoder).style_targets(painting)


def test_a_balanced_loss_wants_to_be_calibrated_first(encoder: VGGEncoder, images: Tensor, painting: Tensor) -> None:
    loss = PerceptualLoss(encoder, balanced=True)
    with pytest.raises(
        ValueError, match=r"no normalizer for content/relu2_2; set its normalizers to measure_normalizers"
    ):
        compute_loss(loss, images, painting)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no photographs were given to calibrate the balanced loss on; expected at least two"),
        ([torch.rand(1, 3, 32, 32)], "no photographs were given"),
        ([torch.zeros(2, 3, 32, 32)], "content/relu2_2 is 0.0 on unstylised photographs, so it cannot be balanced"),
    ],
)
def test_a_failed_calibration_leaves_the_loss_uncalibrated(
    encoder: VGGEncoder, images: Tensor, painting: Tensor, batches: list[Tensor], message: str
) -> None:
    loss = PerceptualLoss(encoder, balanced=True)
    with pytest.raises(ValueError, match=message):
        loss.normalizers = measure_normalizers(loss, batches, loss.style_targets(painting))
    with pytest.raises(ValueError, match="no normalizer"):
        compute_loss(loss, images, painting)


def test_an_unbalanced_loss_needs_no_calibration(encoder: VGGEncoder, images: Tensor, painting: Tensor) -> None:
    loss = PerceptualLoss(encoder)
    before = compute_loss(loss, images, painting)["total"].item()
    assert measure_normalizers(loss, [images], loss.style_targets(painting)) == {}
    assert compute_loss(loss, images, painting)["total"].item() == before


@pytest.mark.parametrize("name", [*PRESETS, "balanced"])
def test_settings_rebuild_the_loss(name: str, images: Tensor, painting: Tensor) -> None:
    encoder = VGGEncoder(random_weights("vgg19", widths=(4, 6, 8, 10, 12)), "vgg19")
    loss = build(name, encoder)
    loss.normalizers = measure_normalizers(loss, [images], loss.style_targets(painting))
    again = PerceptualLoss(encoder, **loss.settings)
    again.normalizers = dict(loss.normalizers)
    assert again.settings == loss.settings
    assert compute_loss(again, images, painting)["total"].item() == compute_loss(loss, images, painting)["total"].item()


def test_settings_of_every_option_rebuild_the_loss(encoder: VGGEncoder, images: Tensor, painting: Tensor) -> None:
    """Nothing at its default, so that no setting can be forgotten."""
    options: dict[str, Any] = {
        "content_layers": {"relu1_1": 2.0, "conv3_1": 0.5},
        "style_layers": {"pool1": 0.3, "relu2_1": 1.2},
        "content_weight": 0.7,
        "style_weight": 30.0,
        "color_weight": 3.0,
        "hue_weight": 0.7,
        "hue_block": 4,
        "tv_weight": 0.01,
        "pixel_weight": 0.2,
        "content_form": "half_sum",
        "gram_divisor": "hw",
        "style_form": "quarter",
        "style_divisor": "chw",
        "tv_form": "l1",
        "tv_reduction": "mean",
    }
    for balanced in (False, True):
        loss = PerceptualLoss(encoder, **options, balanced=balanced)
        assert loss.settings.keys() == {*options, "balanced"}
        loss.normalizers = measure_normalizers(loss, [images], loss.style_targets(painting))
        again = PerceptualLoss(encoder, **loss.settings)
        again.normalizers = dict(loss.normalizers)
        assert compute_loss(again, images, painting)["total"].item() == pytest.approx(
            compute_loss(loss, images, painting)["total"].item(), rel=1e-6
        )


# --- what an encoder knows of photographs ---------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"gram_divisor": "chw", "style_form": "mean"},
        {"gram_divisor": "hw", "style_form": "quarter"},
        {"gram_divisor": "chw", "style_form": "sum", "style_layers": ["relu1_1", "relu2_1/2", "relu4_3"]},
    ],
    ids=str,
)
def test_what_the_encoder_knows_balances_as_the_photographs_do(
    settings: dict[str, Any], encoder: VGGEncoder, painting: Tensor
) -> None:
    photographs = [torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    settings |= {"balanced": True, "tv_form": "l1", "tv_reduction": "mean", "tv_weight": 1.0, "pixel_weight": 1.0}
    check_known_normalizers(encoder, photographs, painting, settings, 1e-4)


def test_an_encoder_that_knows_no_photographs_says_so(encoder: VGGEncoder) -> None:
    with pytest.raises(ValueError, match="carries no measurements of photographs"):
        measure_normalizers(PerceptualLoss(encoder, balanced=True), None, {})


@pytest.mark.parametrize(
    "settings", [{"content_form": "half_sum"}, {"tv_reduction": "sum"}, {"gram_divisor": "none"}], ids=str
)
def test_conventions_that_depend_on_the_size_need_photographs(settings: dict[str, Any], encoder: VGGEncoder) -> None:
    known = knowing(encoder, [torch.rand(2, 3, 32, 32)])
    loss = PerceptualLoss(known, balanced=True, **{"tv_reduction": "mean", **settings})
    with pytest.raises(ValueError, match="only as means"):
        loss.normalizers = measure_normalizers(loss, None, {})


def test_measuring_takes_photographs(encoder: VGGEncoder) -> None:
    with pytest.raises(ValueError, match="no photographs"):
        measure_photographs(encoder, [torch.rand(1, 3, 32, 32)])


def test_a_loss_is_rebuilt_from_its_metadata(encoder: VGGEncoder, images: Tensor, painting: Tensor) -> None:
    loss = PerceptualLoss(encoder, balanced=True, content_layers={"relu2_2": 0.6, "relu3_3": 1}, tv_weight=0.1)
    style = loss.style_targets(painting)
    loss.normalizers = measure_normalizers(loss, [images], style)
    again = PerceptualLoss.from_metadata(encoder, {"loss": {**loss.settings, "normalizers": loss.normalizers}})
    terms = [each(images, content=each.content_targets(images.flip(0)), style=style).total for each in (loss, again)]
    torch.testing.assert_close(terms[0], terms[1], rtol=1e-6, atol=0)
