"""The loss terms: hand-worked values, gradients, distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import (
    CHROMA,
    QUANTILES,
    PerceptualLoss,
    content_loss,
    feature_quantiles,
    gram_matrix,
    measure_normalizers,
    pixel_loss,
    projected,
    sliced_wasserstein,
    style_loss,
    total_variation,
    unmeasured_terms,
)
from loss_terms import PICTURE, check_known_normalizers, double, knowing

# C = 2, H = 1, W = 2. Differences 1, 0, 2, 4; squares 1 + 0 + 4 + 16 = 21.
FEATURES = torch.tensor([[[[1.0, 2.0]], [[3.0, 5.0]]]])


TARGET = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]]]])


# --- hand-worked values ---------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "expected"), [("mean", 21 / 4), ("half_sum", 21 / 2)])
def test_content_loss_of_two_small_maps(form: Any, expected: float) -> None:
    assert content_loss(FEATURES, TARGET, form).item() == expected


def test_content_loss_is_a_mean_over_the_batch_and_a_single_target_serves_all() -> None:
    features = torch.cat([FEATURES, TARGET + 1])  # the second image differs by 1 in each of 4 places
    assert content_loss(features, TARGET, "half_sum").item() == (21 / 2 + 4 / 2) / 2
    assert content_loss(features, TARGET.expand(2, -1, -1, -1), "mean").item() == (21 / 4 + 1) / 2


# C = 2, H·W = 4: f1·f1 = 1 + 4 + 9 + 16 = 30, f1·f2 = 0 + 2 - 3 + 8 = 7, f2·f2 = 0 + 1 + 1 + 4 = 6.
MAPS = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [-1.0, 2.0]]]])


@pytest.mark.parametrize(("divisor", "value"), [("none", 1), ("hw", 4), ("chw", 8)])
def test_gram_matrix_of_two_channels(divisor: Any, value: float) -> None:
    expected = torch.tensor([[[30.0, 7.0], [7.0, 6.0]]]) / value
    torch.testing.assert_close(gram_matrix(MAPS, divisor), expected)


def test_each_image_of_a_batch_has_its_own_gram_matrix() -> None:
    batch = gram_matrix(torch.cat([MAPS, 2 * MAPS]), "none")
    torch.testing.assert_close(batch[1], torch.tensor([[120.0, 28.0], [28.0, 24.0]]))


# N = 2. Differences 1, 0, 1, 2; squares 1 + 0 + 1 + 4 = 6.
GRAM = torch.tensor([[[1.0, 2.0], [2.0, 3.0]]])


GRAM_TARGET = torch.tensor([[[0.0, 2.0], [1.0, 1.0]]])


@pytest.mark.parametrize(("form", "expected"), [("sum", 6.0), ("mean", 6 / 4), ("quarter", 6 / 16)])
def test_style_loss_of_two_small_gram_matrices(form: Any, expected: float) -> None:
    assert style_loss(GRAM, GRAM_TARGET, form).item() == expected
    assert style_loss(torch.cat([GRAM, GRAM_TARGET]), GRAM_TARGET, form).tolist() == [expected, 0]


@pytest.mark.parametrize(
    ("form", "reduction", "expected"),
    [("squared", "sum", 23.0), ("l1", "sum", 11.0), ("squared", "mean", 23 / 12), ("l1", "mean", 11 / 12)],
)
def test_total_variation_of_a_small_picture(form: Any, reduction: Any, expected: float) -> None:
    assert total_variation(PICTURE, form, reduction).item() == pytest.approx(expected, rel=1e-6)
    with_a_flat_one = torch.cat([PICTURE, torch.ones_like(PICTURE)])
    assert total_variation(with_a_flat_one, form, reduction).item() == pytest.approx(expected / 2, rel=1e-6)


def test_a_difference_in_color_counts_more_in_opponent_total_variation() -> None:
    red = torch.zeros(1, 3, 1, 2)
    red[0, 0, 0, 1] = 3.0  # a mean of 1; 2, -1, -1 beside it
    assert total_variation(red, "opponent").item() == pytest.approx(3 * 1 + CHROMA * (2 + 1 + 1))
    grey = PICTURE.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert total_variation(grey, "opponent").item() == pytest.approx(total_variation(grey, "l1").item())


def test_pixel_loss_is_the_mean_squared_difference() -> None:
    image, target = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
    image[0, 0, 0, 0], target[0, 2, 0, 1] = 3.0, 2.0  # (9 + 4) / 6
    assert pixel_loss(image, target).item() == pytest.approx(13 / 6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: content_loss(FEATURES, TARGET, "sum"),  # type: ignore[arg-type]
        lambda: gram_matrix(MAPS, "c"),  # type: ignore[arg-type]
        lambda: style_loss(GRAM, GRAM_TARGET, "half"),  # type: ignore[arg-type]
        lambda: total_variation(PICTURE, "l2"),  # type: ignore[arg-type]
        lambda: total_variation(PICTURE, "l1", "average"),  # type: ignore[arg-type]
    ],
)
def test_an_unknown_convention_is_refused_with_the_known_ones(call: Callable[[], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"'(sum|c|half|l2|average)'; expected .*(mean|hw|squared)"):
        call()


# --- gradients ------------------------------------------------------------------------------------


def test_the_content_gradient_behind_a_relu_is_the_papers() -> None:
    before, target = double(1, 3, 4, 5).requires_grad_(), double(1, 3, 4, 5, seed=1).relu()
    features = before.relu()
    content_loss(features, target, "half_sum").backward()
    expected = torch.where(before > 0, features - target, 0)  # Gatys et al. 2016, eq. 2
    assert 0 < (before > 0).sum() < before.numel()
    torch.testing.assert_close(before.grad, expected.detach())


def test_the_style_gradient_behind_a_relu_is_the_papers() -> None:
    before, style = double(1, 3, 4, 5).requires_grad_(), double(1, 3, 4, 5, seed=1).relu()
    features = before.relu()
    n, m = 3, 20
    style_loss(gram_matrix(features, "hw"), gram_matrix(style, "hw"), "quarter").sum().backward()
    f, s = features.detach().reshape(n, m), style.reshape(n, m)
    gradient = (f.T @ (f @ f.T - s @ s.T)).T / (n**2 * m**2)  # Gatys et al. 2016, eq. 6
    expected = torch.where(before > 0, gradient.reshape(1, n, 4, 5), 0)
    torch.testing.assert_close(before.grad, expected.detach())


GRADIENTS: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    **{f"content {f}": (lambda x, y, f=f: content_loss(x, y, f), ((2, 3, 4, 2),) * 2) for f in ("mean", "half_sum")},
    **{f"gram {d}": (lambda x, d=d: gram_matrix(x, d), ((2, 3, 4, 2),)) for d in ("none", "hw", "chw")},
    **{f"style {f}": (lambda x, y, f=f: style_loss(x, y, f), ((2, 3, 3),) * 2) for f in ("sum", "mean", "quarter")},
    **{
        f"total variation {f} {r}": (lambda x, f=f, r=r: total_variation(x, f, r), ((2, 3, 4, 3),))
        for f in ("squared", "l1")
        for r in ("sum", "mean")
    },
    "pixel": (pixel_loss, ((2, 3, 4, 2),) * 2),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    function, shapes = GRADIENTS[name]
    inputs = [double(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(function, inputs)


# --- sliced Wasserstein, and layers of a reduced picture --------------------------------------------


def test_directions_are_the_channels_and_an_orthonormal_turn_of_them() -> None:
    features = torch.randn(2, 6, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = projected(features)
    assert found.shape == (2, 12, 20)
    torch.testing.assert_close(found[:, :6], features.flatten(2))
    torch.testing.assert_close(found[:, 6], features.flatten(2).sum(1) / math.sqrt(6))  # the cosine of frequency 0
    turned = found[:, 6:] @ found[:, 6:].transpose(1, 2)
    torch.testing.assert_close(turned.diagonal(dim1=1, dim2=2).sum(1), features.square().sum((1, 2, 3)))


def test_sliced_wasserstein_of_two_small_maps() -> None:
    # Sorted: 1 2 and 3 5 against 0 2 and 1 1. Sum and difference over sqrt(2): 4 7 against 1 3, -3 -2 against -1 1.
    # Squares: 1 0, 4 16; (9 + 16) / 2; (4 + 9) / 2; over 4 directions of 2 positions.
    expected = (1 + 0 + 4 + 16 + 25 / 2 + 13 / 2) / 8
    target = projected(TARGET).sort(-1).values
    torch.testing.assert_close(sliced_wasserstein(FEATURES, target), torch.tensor([expected]))


def test_sliced_wasserstein_sees_values_and_not_their_places() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.rand(1, 4, 16, 16, generator=generator)
    shuffled = features.flatten(2)[:, :, torch.randperm(256, generator=generator)].view_as(features)
    target = feature_quantiles(features)
    assert target.shape == (1, 8, QUANTILES)
    assert (target.diff(dim=-1) >= 0).all()
    assert sliced_wasserstein(shuffled, target).item() == pytest.approx(sliced_wasserstein(features, target).item())
    assert sliced_wasserstein(features, target).item() < 1e-4
    assert sliced_wasserstein(features + 0.5, target).item() == pytest.approx(
        0.25, rel=0.01
    )  # a shift of every channel
    smaller = features[..., ::2, ::2]  # fewer positions than quantiles
    assert sliced_wasserstein(smaller, target).item() < 5e-3


def test_a_sample_of_positions_covers_rows_and_columns() -> None:
    places = torch.arange(64 * 48.0).view(1, 1, 64, 48)
    seen = projected(places, samples=300)[0, 0].long()
    assert 200 <= len(seen) <= 400
    assert set((seen // 48).tolist()) == set(range(64))
    assert set((seen % 48).tolist()) == set(range(48))
    assert len({(int(i) // 48 % 4, int(i) % 4) for i in seen}) == 16  # every place of two upsamplings by 2


def test_two_distributions_of_one_gram_matrix_are_told_apart() -> None:
    even = torch.tensor([[[[1.0, 1.0, 1.0, 1.0]]]])
    spiked = torch.tensor([[[[2.0, 0.0, 0.0, 0.0]]]])
    torch.testing.assert_close(gram_matrix(even), gram_matrix(spiked))
    assert sliced_wasserstein(even, feature_quantiles(spiked, 4)).item() > 0.9


def test_pixels_are_compared_as_a_distribution_beside_gram_matrices(
    encoder: VGGEncoder, images: Tensor, painting: Tensor
) -> None:
    loss = PerceptualLoss(encoder, (), ["pixels", "pixels/2", "relu2_1"], content_weight=0, style_form="mean")
    target = loss.style_targets(painting)
    torch.testing.assert_close(target["pixels"], feature_quantiles(painting))
    torch.testing.assert_close(target["relu2_1"], gram_matrix(encoder(painting, ["relu2_1"])["relu2_1"]))
    terms = loss(images, style=target).style
    torch.testing.assert_close(terms["pixels"], sliced_wasserstein(images, target["pixels"]).mean())
    found = gram_matrix(encoder(images, ["relu2_1"])["relu2_1"])
    torch.testing.assert_close(terms["relu2_1"], style_loss(found, target["relu2_1"], "mean").mean())


def test_a_layer_of_the_picture_at_half_its_size(encoder: VGGEncoder, images: Tensor) -> None:
    loss = PerceptualLoss(encoder, ["relu2_2/2"], ["relu1_2", "relu1_2/2"], style_form="sliced")
    half = torch.torch.nn.functional.avg_pool2d(images, 2)
    torch.testing.assert_close(loss.content_targets(images)["relu2_2/2"], encoder(half, ["relu2_2"])["relu2_2"])
    targets = loss.style_targets(images)
    assert targets.keys() == {"relu1_2", "relu1_2/2"}
    torch.testing.assert_close(targets["relu1_2/2"], feature_quantiles(encoder(half, ["relu1_2"])["relu1_2"]))
    terms = loss(images, loss.content_targets(images.flip(0)), loss.style_targets(images[:1])).scalars()
    assert {"content/relu2_2/2", "style/relu1_2", "style/relu1_2/2"} <= terms.keys()


def test_a_picture_too_small_for_its_half_is_refused(encoder: VGGEncoder) -> None:
    loss = PerceptualLoss(encoder, style_layers=["relu3_3/2"], style_form="sliced")
    assert loss.style_targets(torch.rand(1, 3, 8, 8))["relu3_3/2"].shape[-1] == QUANTILES
    with pytest.raises(ValueError, match=r"^a picture of 9×7 pixels is too small for layers at 1/2 .* at least 8,"):
        loss.style_targets(torch.rand(1, 3, 7, 9))


@pytest.mark.parametrize("name", ["relu1_2/3", "relu1_2/", "relu1_2/1"])
def test_a_reduction_that_is_no_power_of_two_is_refused(name: str, encoder: VGGEncoder) -> None:
    with pytest.raises(ValueError, match=r"expected /2, /4, /8 or /16"):
        PerceptualLoss(encoder, style_layers=[name])


def test_what_the_encoder_knows_balances_distributions_too(encoder: VGGEncoder, painting: Tensor) -> None:
    photographs = [torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    settings: dict[str, Any] = {"balanced": True, "style_form": "sliced", "tv_form": "l1", "tv_reduction": "mean"}
    settings |= {"tv_weight": 1.0, "pixel_weight": 1.0, "style_layers": ["relu1_1", "relu3_1", "relu2_1/2"]}
    check_known_normalizers(encoder, photographs, painting, settings, 0.03)  # quantiles are means of a few positions
    lacking = PerceptualLoss(knowing(encoder, photographs), **settings | {"style_layers": ["relu1_2"]})
    with pytest.raises(ValueError, match="no measurements of photographs at relu1_2;"):
        lacking.normalizers = measure_normalizers(lacking, None, lacking.style_targets(painting))


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"style_form": "mean", "style_layers": ["relu1_1", "relu1_1/2", "relu1_2/2"]}, ["relu1_2/2"]),
        ({"style_form": "mean", "content_layers": ["relu3_3/2"]}, ["relu3_3/2"]),
        ({"style_form": "sliced", "style_layers": ["relu1_1/2"]}, []),
        ({"tv_form": "opponent", "style_layers": ["relu1_1"]}, []),
    ],
)
def test_what_the_encoder_does_not_know_is_named(
    settings: dict[str, Any], layers: list[str], encoder: VGGEncoder, painting: Tensor
) -> None:
    known = knowing(encoder, [torch.rand(2, 3, 40, 40)])
    loss = PerceptualLoss(known, **{"balanced": True, "tv_form": "l1", "tv_reduction": "mean", **settings})
    assert unmeasured_terms(loss) == layers
    if layers:
        with pytest.raises(ValueError, match=f"no measurements of photographs at {layers[0]}"):
            loss.normalizers = measure_normalizers(loss, None, loss.style_targets(painting))
        loss.normalizers = measure_normalizers(loss, [torch.rand(2, 3, 40, 40)], loss.style_targets(painting))
