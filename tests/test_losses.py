"""Losses against numbers worked out by hand, the papers' formulas, and each other in every precision and batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from fststyle.encoders.pretrained import load_encoder, random_weights
from fststyle.encoders.vgg import VGGEncoder, mean_activations, normalize_activations
from fststyle.images import to_image
from fststyle.losses import (
    CHROMA,
    QUANTILES,
    PerceptualLoss,
    checkerboard_loss,
    color_loss,
    content_loss,
    feature_quantiles,
    gram_matrix,
    measure_normalizers,
    measure_photographs,
    pixel_loss,
    projected,
    random_warp,
    sliced_wasserstein,
    stability_loss,
    style_loss,
    total_variation,
    unmeasured_terms,
)
from fststyle.networks.blocks import gaussian_blur
from fststyle.resources import resource

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
Terms = Callable[[Tensor], Tensor]


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def crop(picture: np.ndarray, top: int, left: int, size: int = 64, step: int = 2) -> Tensor:
    """An image of ``size`` pixels a side, each of which stands for ``step`` × ``step`` of the picture."""
    return to_image(np.ascontiguousarray(picture[top : top + size * step : step, left : left + size * step : step]))


@pytest.fixture
def images(astronaut: np.ndarray) -> Tensor:
    """Four photographs, (4, 3, 48, 48)."""
    return torch.cat([crop(astronaut, top, left, 48) for top, left in ((0, 150), (100, 300), (250, 20), (380, 380))])


@pytest.fixture
def painting(astronaut: np.ndarray) -> Tensor:
    """Something whose statistics are not a photograph's: saturated, rotated, coarse. (1, 3, 48, 64)."""
    image = crop(astronaut, 64, 64, 64, 6).flip(1).transpose(2, 3)
    return ((image[..., :48, :] - 0.5) * 3).sigmoid()


def everything(encoder: VGGEncoder, **settings: Any) -> PerceptualLoss:
    return PerceptualLoss(encoder, tv_weight=1e-3, pixel_weight=0.5, **settings)


def compute_loss(loss: PerceptualLoss, images: Tensor, painting: Tensor) -> dict[str, Tensor]:
    """Every term of the images, darkened, against themselves (content, pixels) and the painting (style)."""
    terms = loss(images * 0.6, loss.content_targets(images), loss.style_targets(painting), images)
    return terms.scalars()


class Recorder(VGGEncoder):
    """An encoder that writes down which layers it is asked for."""

    def __init__(self) -> None:
        super().__init__(random_weights("vgg16", widths=(4, 4, 4, 4, 4)), "vgg16")
        self.asked: list[set[str]] = []

    def forward(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        layers = set(layers)
        self.asked.append(layers)
        return super().forward(image, layers)


# --- hand-worked values ---------------------------------------------------------------------------

# C = 2, H = 1, W = 2. Differences 1, 0, 2, 4; squares 1 + 0 + 4 + 16 = 21.
FEATURES = torch.tensor([[[[1.0, 2.0]], [[3.0, 5.0]]]])
TARGET = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]]]])


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


# Down: 2, 1, -3. Across: 1, 2 and 0, -2. Squares 14 + 9 = 23, absolute values 6 + 5 = 11.
# The second channel is flat: it adds nothing to the sum, but counts among the C·H·W = 12 of the mean.
PICTURE = torch.tensor([[[[0.0, 1.0, 3.0], [2.0, 2.0, 0.0]], [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]]])


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


# --- batches, precision, side effects -------------------------------------------------------------


@pytest.mark.parametrize(
    "conventions", [{}, {"content_form": "half_sum", "gram_divisor": "hw", "style_form": "quarter", "tv_form": "l1"}]
)
def test_a_batch_of_four_costs_the_mean_of_its_images(
    encoder: VGGEncoder, images: Tensor, painting: Tensor, conventions: dict[str, Any]
) -> None:
    loss = everything(deepcopy(encoder).double(), style_divisor="chw", tv_reduction="mean", **conventions)
    images, painting = images.double().requires_grad_(), painting.double()
    together = compute_loss(loss, images, painting)
    gradient = torch.autograd.grad(together["total"], images)[0]
    apart = [compute_loss(loss, images[i : i + 1], painting) for i in range(4)]
    assert together.keys() >= {"total", "content/relu2_2", *(f"style/{name}" for name in STYLE_LAYERS), "tv", "pixel"}
    for name, value in together.items():
        torch.testing.assert_close(value, torch.stack([terms[name] for terms in apart]).mean(), rtol=1e-10, atol=0)
    singly = torch.autograd.grad(sum(terms["total"] for terms in apart) / 4, images)[0]
    torch.testing.assert_close(gradient, singly, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("gram", ["none", "chw"])
def test_float32_agrees_with_float64(encoder: VGGEncoder, images: Tensor, painting: Tensor, gram: Any) -> None:
    single = compute_loss(everything(encoder, gram_divisor=gram), images, painting)
    double = compute_loss(everything(deepcopy(encoder).double(), gram_divisor=gram), images.double(), painting.double())
    for name, value in double.items():
        assert value.dtype == torch.float64
        assert single[name].item() == pytest.approx(value.item(), rel=1e-5), name


def assert_bfloat16_agrees(loss: PerceptualLoss, image: Tensor, painting: Tensor) -> None:
    """As in training: the painting is measured once in float32, all else under autocast."""
    full = compute_loss(loss, image, painting)
    style = loss.style_targets(painting)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss.encoder(image, ["relu3_1"])["relu3_1"].dtype == torch.bfloat16
        half = loss(image * 0.6, loss.content_targets(image), style, image).scalars()
    assert full.keys() == half.keys()
    for name, value in full.items():
        assert half[name].dtype == torch.float32
        assert half[name].item() == pytest.approx(value.item(), rel=0.02), name


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bfloat16_autocast_changes_no_term_by_more_than_two_percent(
    astronaut: np.ndarray, painting: Tensor, seed: int
) -> None:
    encoder = VGGEncoder(random_weights("vgg16", seed, widths=(16, 24, 32, 32, 32)), "vgg16")
    assert_bfloat16_agrees(everything(encoder), crop(astronaut, 0, 100, 96), painting)


@pytest.mark.parametrize("normalize", [False, True])
def test_bfloat16_autocast_agrees_with_a_trained_encoder(
    data: Path, astronaut: np.ndarray, painting: Tensor, normalize: bool
) -> None:
    """Normalised too: a random network has filters that almost never fire, and scaling those up magnifies rounding."""
    image = crop(astronaut, 0, 100, 96)
    encoder = load_encoder("vgg19", data / "weights" / "vgg19_slim.safetensors")
    if normalize:
        encoder = normalize_activations(encoder, mean_activations(encoder, [image]))
    assert_bfloat16_agrees(everything(encoder, style_layers=STYLE_LAYERS), image, painting)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gram_matrices_stay_in_float32_under_autocast(dtype: torch.dtype) -> None:
    features = double(2, 8, 30, 30).to(dtype)
    expected = gram_matrix(features.double(), "none")
    with torch.autocast("cpu", torch.bfloat16):
        gram = gram_matrix(features, "none")
    assert gram.dtype == torch.float32
    torch.testing.assert_close(gram.double(), expected, rtol=1e-5, atol=1e-3)


def test_half_precision_features_do_not_overflow_the_gram_matrix() -> None:
    features = torch.full((1, 2, 64, 64), 200.0, dtype=torch.float16)  # 64² · 200² = 1.6e8; float16 ends at 65504
    assert gram_matrix(features, "none").tolist() == [[[163_840_000.0] * 2] * 2]
    assert content_loss(features, torch.zeros_like(features), "mean").item() == 40_000.0
    assert total_variation(features[..., :2] * torch.tensor([1.0, -1.0]).half()).item() == 2 * 64 * 400**2


def test_the_loss_changes_neither_output_nor_targets_nor_features(
    encoder: VGGEncoder, images: Tensor, painting: Tensor
) -> None:
    seen: dict[str, Tensor] = {}
    features_of = encoder.forward

    def keep(image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        found = features_of(image, layers)
        seen.update(found)
        return found

    loss = everything(encoder)
    content, style = loss.content_targets(images), loss.style_targets(painting)
    output = (images * 0.6).requires_grad_()
    given = [output, images, *content.values(), *style.values()]
    before = [tensor.detach().clone() for tensor in given]
    alone = {layer: features_of(output, [layer])[layer] for layer in STYLE_LAYERS}
    encoder.forward = keep  # type: ignore[method-assign]
    loss(output, content, style, images).total.backward()
    for tensor, copy in zip(given, before, strict=True):
        assert torch.equal(tensor, copy)
    for layer, value in alone.items():
        assert torch.equal(seen[layer], value)
    assert output.grad is not None
    assert output.grad.abs().sum() > 0


def test_targets_carry_no_graph(encoder: VGGEncoder, images: Tensor) -> None:
    loss = PerceptualLoss(encoder)
    images.requires_grad_()
    assert not any(value.requires_grad for value in loss.content_targets(images).values())
    assert not any(value.requires_grad for value in loss.style_targets(images).values())


def test_nothing_of_the_loss_is_trained_or_stored(encoder: VGGEncoder) -> None:
    loss = PerceptualLoss(encoder).train()
    assert not list(loss.parameters())
    assert not loss.state_dict()
    assert not loss.encoder.training


# --- which terms count ----------------------------------------------------------------------------


def test_the_total_weighs_every_term_by_group_and_layer(encoder: VGGEncoder, images: Tensor, painting: Tensor) -> None:
    loss = PerceptualLoss(
        encoder,
        content_layers={"relu1_1": 0.25, "conv2_1": 3.0},
        style_layers={"relu1_2": 2.0, "pool2": 0.5},
        content_weight=7.0,
        style_weight=11.0,
        tv_weight=0.13,
        pixel_weight=17.0,
    )
    t = {name: value.item() for name, value in compute_loss(loss, images, painting).items()}
    expected = 7 * (0.25 * t["content/relu1_1"] + 3 * t["content/conv2_1"])
    expected += 11 * (2 * t["style/relu1_2"] + 0.5 * t["style/pool2"]) + 0.13 * t["tv"] + 17 * t["pixel"]
    assert t["total"] == pytest.approx(expected, rel=1e-6)


def test_terms_of_weight_zero_are_not_computed(images: Tensor) -> None:
    every = {"content_layers": ["relu1_1"], "style_layers": ["relu2_1"], "tv_weight": 1.0, "pixel_weight": 1.0}
    complete = PerceptualLoss(Recorder(), **every)
    targets = complete.content_targets(images), complete.style_targets(images), images
    assert set(complete(images, *targets).scalars()) == {"total", "content/relu1_1", "style/relu2_1", "tv", "pixel"}
    for group, name, layer in (
        ("content", "content/relu1_1", "relu1_1"),
        ("style", "style/relu2_1", "relu2_1"),
        ("tv", "tv", ""),
        ("pixel", "pixel", ""),
    ):
        encoder = Recorder()
        loss = PerceptualLoss(encoder, **{**every, f"{group}_weight": 0.0})
        loss.content_targets(images)
        loss.style_targets(images)
        assert name not in loss(images, *targets).scalars()
        assert set().union(*encoder.asked) == {"relu1_1", "relu2_1"} - {layer}


@pytest.mark.parametrize("balanced", [False, True])
def test_a_layer_of_weight_zero_is_not_computed(images: Tensor, balanced: bool) -> None:
    encoder = Recorder()
    layers = {"relu1_1": 2.0, "conv4_1": 0.0}
    loss = PerceptualLoss(encoder, content_layers=layers, style_layers={"relu2_1": 0, "relu1_2": 1}, balanced=balanced)
    style = loss.style_targets(images.flip(0))
    loss.normalizers = measure_normalizers(loss, [images], style)
    terms = loss(images, loss.content_targets(images), style)
    assert (list(terms.content), list(terms.style)) == (["relu1_1"], ["relu1_2"])
    assert set().union(*encoder.asked) == {"relu1_1", "relu1_2"}


def test_a_term_without_target_is_left_out(images: Tensor) -> None:
    encoder = Recorder()
    loss = PerceptualLoss(encoder, pixel_weight=1.0)
    style = loss.style_targets(images)
    encoder.asked.clear()
    terms = loss(images, style=style)
    assert not terms.content
    assert terms.pixel is None
    assert encoder.asked == [set(STYLE_LAYERS)]


def test_total_variation_alone_needs_no_encoder_pass(images: Tensor) -> None:
    encoder = Recorder()
    loss = PerceptualLoss(encoder, content_weight=0, style_weight=0, tv_weight=2.0)
    assert loss(images).total.item() == pytest.approx(2 * total_variation(images).item())
    assert not set().union(*encoder.asked)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"style_weight": -1.0}, "the weight of style is -1.0; expected a number ≥ 0"),
        ({"tv_weight": float("nan")}, "the weight of tv is nan; expected a number ≥ 0"),
        ({"pixel_weight": float("inf")}, "the weight of pixel is inf; expected a number ≥ 0"),
        ({"style_layers": {"relu1_2": -1.0}}, "the weight of relu1_2 is -1.0; expected a number ≥ 0"),
        ({"content_layers": {"relu1_2": -2.0, "relu2_2": 3.0}}, "the weight of relu1_2 is -2.0; expected"),
        ({"content_layers": {"relu1_2": float("nan")}}, "the weight of relu1_2 is nan; expected a number ≥ 0"),
        ({"content_weight": 0, "style_weight": 0}, "every loss weight is 0; give at least one of content, style"),
        ({"content_weight": 0, "style_layers": {"relu1_2": 0}}, "every loss weight is 0"),
        ({"content_layers": ["relu2_3"]}, "custom has no layer 'relu2_3'; expected one of conv1_1, relu1_1, "),
        ({"style_layers": {"conv9_1": 1.0}}, "custom has no layer 'conv9_1'; expected one of conv1_1, relu1_1, "),
        ({"content_form": "sum"}, "content_form is 'sum'; expected mean or half_sum"),
        ({"gram_divisor": "nhw"}, "gram_divisor is 'nhw'; expected none or hw or chw"),
        ({"style_form": "half"}, "style_form is 'half'; expected sum or mean or quarter"),
        ({"style_divisor": "hw"}, "style_divisor is 'hw'; expected none or chw"),
        ({"tv_form": "l2"}, "tv_form is 'l2'; expected squared or l1 or opponent"),
        ({"tv_reduction": "average"}, "tv_reduction is 'average'; expected sum or mean"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(
    encoder: VGGEncoder, settings: dict[str, Any], message: str, balanced: bool
) -> None:
    with pytest.raises(ValueError, match=r"expected|give") as caught:
        PerceptualLoss(encoder, **settings, balanced=balanced)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_one_layer_may_be_given_by_its_name_alone(encoder: VGGEncoder) -> None:
    assert PerceptualLoss(encoder, content_layers="relu3_3").content_layers == {"relu3_3": 1.0}


# --- presets --------------------------------------------------------------------------------------


def build(name: str, encoder: VGGEncoder) -> PerceptualLoss:
    with initialize_config_dir(str(resource("conf")), version_base="1.3"):
        config = compose("train", overrides=[f"loss={name}"])
    return instantiate(config.loss, encoder=encoder)


def flat(features: Tensor) -> Tensor:
    """F of one image as the papers write it, N × M."""
    return features[0].flatten(1)


def squares(tensor: Tensor) -> Tensor:
    return (tensor * tensor).sum()


def steps(image: Tensor) -> Iterator[Tensor]:
    yield image[..., 1:, :] - image[..., :-1, :]
    yield image[..., :, 1:] - image[..., :, :-1]


Features = Mapping[str, Tensor]


def johnson_content(f: Tensor, p: Tensor) -> Tensor:
    return squares(f - p) / f.numel()


def johnson_gram(f: Tensor) -> Tensor:
    return f @ f.T / f.numel()


def johnson(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """The paper's equations 2 to 5, and the squared total variation of its section 3.2."""
    style = sum(squares(johnson_gram(f[name]) - johnson_gram(s[name])) for name in STYLE_LAYERS)
    return johnson_content(f["relu2_2"], p["relu2_2"]) + 5 * style + 1e-6 * sum(map(squares, steps(y)))


def johnson_lua(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """fast-neural-style: content at relu3_3, and nn.MSECriterion over the Gram matrices."""
    style = sum((johnson_gram(f[name]) - johnson_gram(s[name])).square().mean() for name in STYLE_LAYERS)
    return johnson_content(f["relu3_3"], p["relu3_3"]) + 5 * style + 1e-6 * sum(map(squares, steps(y)))


def gatys_styles(f: Features, s: Features, layers: Iterable[str]) -> list[Tensor]:
    """Equation 4 of Gatys et al. 2016, the same as equation 3 of 2015; Gram matrices as they are, not divided."""
    terms = []
    for layer in layers:
        n, m = f[layer].shape
        terms.append(squares(f[layer] @ f[layer].T - s[layer] @ s[layer].T) / (4 * n**2 * m**2))
    return terms


def gatys(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """Gatys et al. 2016, equations 1 to 7, alpha / beta = 1e-3, w = 1/5."""
    style = gatys_styles(f, s, [f"relu{block}_1" for block in range(1, 6)])
    return squares(f["relu4_2"] - p["relu4_2"]) / 2 + 1000 * 0.2 * sum(style)


def gatys_code(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """Their later code: nn.MSELoss of features and of Gram matrices over H·W, the latter times 1000 / N²."""
    total = (f["relu4_2"] - p["relu4_2"]).square().mean()
    for block in range(1, 6):
        a, b = f[f"relu{block}_1"], s[f"relu{block}_1"]
        channels = (64, 128, 256, 512, 512)[block - 1]
        total = total + 1e3 / channels**2 * ((a @ a.T - b @ b.T) / a.shape[1]).square().mean()
    return total


def texture(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """Gatys et al. 2015: the first layer and four poolings, each weighing 1."""
    return sum(gatys_styles(f, s, ["relu1_1", "pool1", "pool2", "pool3", "pool4"]), torch.zeros(()))


def content(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """Feature reconstruction alone."""
    return johnson_content(f["relu2_2"], p["relu2_2"])


def tutorial(f: Features, p: Features, s: Features, y: Tensor) -> Tensor:
    """Mean squared errors of features and of Gram matrices that are not divided, absolute total variation."""
    grams = [(f[f"conv{i}_1"] @ f[f"conv{i}_1"].T, s[f"conv{i}_1"] @ s[f"conv{i}_1"].T) for i in range(1, 6)]
    style = sum((a - b).square().mean() for a, b in grams)
    content = (f["conv4_2"] - p["conv4_2"]).square().mean()
    return content + 1e6 * style + 1e-6 * sum(step.abs().sum() for step in steps(y))


PRESETS = {
    "johnson": johnson,
    "johnson-lua": johnson_lua,
    "gatys": gatys,
    "gatys-code": gatys_code,
    "texture": texture,
    "content": content,
    "tutorial": tutorial,
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_computes_its_published_formula(name: str, images: Tensor, painting: Tensor) -> None:
    encoder = VGGEncoder(random_weights("vgg19", widths=(4, 6, 8, 10, 12)), "vgg19").double()
    content, output = images[:1].double(), (0.6 * images[1:2]).double()
    painting = painting[..., :48].double()  # of the output's size, where Gatys' two ways to divide agree
    loss = build(name, encoder)
    f, p, s = ({k: flat(v) for k, v in encoder(x, encoder.layers).items()} for x in (output, content, painting))
    targets = {"content": loss.content_targets(content), "style": loss.style_targets(painting)}
    # Each part alone first: in the sum one of them can be too small to be seen.
    tv, with_content = PRESETS[name](f, f, f, output), PRESETS[name](f, p, f, output)
    with_style, total = PRESETS[name](f, f, s, output), PRESETS[name](f, p, s, output)
    felt = [v for v, layers in ((with_content, loss.content_layers), (with_style, loss.style_layers)) if layers]
    assert min(felt) > tv
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=0)
    close(loss(output).total, tv)
    close(loss(output, content=targets["content"]).total, with_content)
    close(loss(output, style=targets["style"]).total, with_style)
    close(loss(output, **targets).total, total)


def test_the_loss_of_pixels_needs_no_encoder(images: Tensor) -> None:
    """Johnson 2016, § 3.2: the squared Euclidean distance over C·H·W."""
    loss = build("pixel", None)
    loss.normalizers = {"pixel": 1.0}
    output, target = images[:1], 0.5 * images[:1]
    terms = loss(output, content=loss.content_targets(target), style=loss.style_targets(target), pixels=target)
    assert float(terms.total) == pytest.approx(float((output - target).square().sum()) / output.numel())
    assert (terms.content, terms.style, terms.tv) == ({}, {}, None)


def test_losses_of_super_resolution_are_1_for_another_photograph(images: Tensor, encoder: VGGEncoder) -> None:
    for name, compute_loss in (("pixel", build("pixel", None)), ("feature", build("feature", encoder))):
        compute_loss.normalizers = measure_normalizers(compute_loss, [images], {})
        other = images.roll(1, 0)
        total = compute_loss(images, content=compute_loss.content_targets(other), pixels=other).total
        assert float(total) == pytest.approx(1, rel=1e-5), name


def test_a_loss_of_layers_needs_an_encoder() -> None:
    with pytest.raises(ValueError, match="takes an encoder"):
        PerceptualLoss(None)


def test_the_texture_model_has_as_many_free_parameters_as_the_paper_says() -> None:
    """Gatys et al. 2015, § 5: about 177k, those of five symmetric Gram matrices."""
    loss = build("texture", VGGEncoder(random_weights("vgg19"), "vgg19"))
    grams = loss.style_targets(torch.rand(1, 3, 32, 32))
    assert sum(gram.shape[-1] * (gram.shape[-1] + 1) // 2 for gram in grams.values()) == 176_640


def test_without_a_margin_the_rest_has_to_have_the_style_too(encoder: VGGEncoder, painting: Tensor) -> None:
    layers = {"pixels": 1.0, "relu1_2": 1.0, "relu2_2/2": 1.0}
    loss = PerceptualLoss(encoder, content_weight=0.0, style_layers=layers, gram_divisor="hw", style_form="mean")
    targets, output = loss.style_targets(painting), torch.rand(2, 3, 48, 64)
    terms = loss(output, style=targets, margin=8).style
    features = loss.features(output, layers)
    inner = {"pixels": features["pixels"][..., 8:-8, 8:-8], "relu1_2": features["relu1_2"][..., 8:-8, 8:-8]}
    inner["relu2_2/2"] = features["relu2_2/2"][..., 2:-2, 2:-2]  # a position is 4 pixels wide
    for layer, value in inner.items():
        both = [loss.style_distance(layer, each, targets[layer]).mean() for each in (features[layer], value)]
        assert torch.allclose(terms[layer], (both[0] + both[1]) / 2), layer
        assert not torch.equal(*both)
    assert loss.without_margin("relu1_2", features["relu1_2"], 1000).shape[2:] == (2, 2)


def test_every_preset_is_tested() -> None:
    """Files whose name begins with an underscore are what others share."""
    names = {path.stem for path in (resource("conf") / "loss").glob("*.yaml") if not path.stem.startswith("_")}
    assert names == {*PRESETS, "balanced", "balanced_relu4_3", "feature", "inverse", "pixel", "swap"}


def test_total_variation_of_the_presets_is_a_sum_squared_or_absolute(encoder: VGGEncoder) -> None:
    for name, expected in (("johnson", 23.0), ("johnson-lua", 23.0), ("tutorial", 11.0)):
        loss = build(name, encoder)
        image = PICTURE.expand(2, -1, -1, -1)  # the encoder is asked for nothing
        assert loss(image).tv.item() == pytest.approx(expected)
        assert loss(image).total.item() == pytest.approx(1e-6 * expected)


def test_gatys_style_loss_does_not_depend_on_the_paintings_size(encoder: VGGEncoder) -> None:
    loss = PerceptualLoss(encoder, style_layers=["relu1_1"], gram_divisor="hw", style_form="quarter")
    flat_colour = torch.full((1, 3, 32, 32), 0.5)
    small = loss.style_targets(flat_colour)["relu1_1"]
    tiled = gram_matrix(encoder(flat_colour, ["relu1_1"])["relu1_1"].repeat(1, 1, 3, 2), "hw")
    torch.testing.assert_close(small, tiled)


def test_the_extra_divisor_of_the_lecture_notes_is_the_layers_size(
    encoder: VGGEncoder, images: Tensor, painting: Tensor
) -> None:
    plain = compute_loss(PerceptualLoss(encoder), images, painting)
    divided = compute_loss(PerceptualLoss(encoder, style_divisor="chw"), images, painting)
    sizes = {"relu1_2": 4 * 48 * 48, "relu2_2": 6 * 24 * 24, "relu3_3": 8 * 12 * 12, "relu4_3": 10 * 6 * 6}
    for layer, size in sizes.items():
        assert divided[f"style/{layer}"].item() == pytest.approx(plain[f"style/{layer}"].item() / size, rel=1e-6)


# --- the balanced loss ----------------------------------------------------------------------------


def photographs(astronaut: np.ndarray, seed: int, count: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.cat([crop(astronaut, *rng.integers(0, 512 - 192, 2), 96, 2) for _ in range(count)])


def test_balanced_terms_of_other_photographs_average_about_one(
    encoder: VGGEncoder, astronaut: np.ndarray, painting: Tensor
) -> None:
    loss = build("balanced", encoder)
    style = loss.style_targets(painting)
    loss.normalizers = measure_normalizers(loss, photographs(astronaut, 0, 24).split(6), style)
    seen, others = photographs(astronaut, 1, 24), photographs(astronaut, 2, 24)
    terms = loss(seen, loss.content_targets(others), style).scalars()
    assert {"content/relu3_3", "style/pixels", "style/relu1_2", "style/relu4_3"} <= set(terms)
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


def test_colors_of_each_photograph_of_a_batch_and_of_any_size(images: Tensor, painting: Tensor) -> None:
    loss = PerceptualLoss(None, (), (), 0, 0, color_weight=1)
    style = loss.style_targets(painting)
    batch = images[:, :, :33, :45]
    wanted = loss.content_targets(batch, style)["color"]
    assert wanted.shape == (len(batch), 3, 2, 2)
    for image, own in zip(batch, wanted, strict=True):
        torch.testing.assert_close(loss.content_targets(image[None], style)["color"][0], own, atol=1e-5, rtol=0)
    assert loss.content_targets(images[:1, :, :5, :7], style)["color"].shape == (1, 3, 1, 1)


@pytest.mark.parametrize("function", [color_loss, pytest.param(torch.compile(color_loss), marks=pytest.mark.slow)])
def test_blocks_at_the_edges_count_as_much_as_they_cover(function: Any) -> None:
    """48 rows: a block of 32 and one of 16; compiled as well, whose gradient of such means was wrong."""
    zero = torch.zeros(1, 3, 2, 2)
    image = torch.ones(1, 3, 48, 64)
    image[:, :, 32:] = 2
    pixels = image.clone().requires_grad_()
    loss = function(pixels, zero)
    assert loss.item() == pytest.approx((32 + 16 * 4) / 48)
    loss.sum().backward()
    torch.testing.assert_close(pixels.grad, 2 * image / 3 / (48 * 64))


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
        ValueError,
        match=r"no normalizer for content/relu2_2; set its normalizers to measure_normalizers",
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


def knowing(encoder: VGGEncoder, photographs: list[Tensor]) -> VGGEncoder:
    measured = measure_photographs(encoder, photographs)
    return VGGEncoder(encoder.weights(), encoder.architecture, photographs=measured)


def check_known_normalizers(
    encoder: VGGEncoder, photographs: list[Tensor], painting: Tensor, settings: dict[str, Any], rel: float
) -> None:
    """What the encoder knows of photographs balances a loss as these photographs do."""
    loss = PerceptualLoss(encoder, **settings)
    style = loss.style_targets(painting)
    measured = loss.normalizers = measure_normalizers(loss, photographs, style)
    known = measure_normalizers(PerceptualLoss(knowing(encoder, photographs), **settings), None, style)
    assert known.keys() == measured.keys()
    for name, value in measured.items():
        assert known[name] == pytest.approx(value, rel=rel), name


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


# --- what a network must not do -------------------------------------------------------------------


def test_the_checkerboard_loss_is_the_energy_of_the_mean_tile() -> None:
    tile = torch.arange(16.0).view(1, 1, 4, 4) / 16
    image = tile.repeat(2, 3, 16, 8)  # 64 × 32
    expected = float((tile - tile.mean()).square().mean())
    assert float(checkerboard_loss(image)) == pytest.approx(expected)
    assert float(checkerboard_loss(image + 0.3)) == pytest.approx(expected, rel=1e-4)
    assert float(checkerboard_loss(image.repeat_interleave(4, 2).repeat_interleave(4, 3))) == pytest.approx(0, abs=1e-6)
    assert float(checkerboard_loss(torch.rand(1, 3, 31, 40))) == 0, "less than a window"


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
    moved = blocks(torch.roll(images[:1], (-3, -1), (2, 3)))[:, :, 10:35, 10:29]
    expected = (moved - outputs[:1, :, 13:38, 11:30]).square().mean() / (fine(outputs[:1]) + 1e-5)
    assert float(stability_loss(blocks, images, outputs, shifted(1, 3))) == pytest.approx(float(expected), rel=1e-3)
    assert float(stability_loss(blocks, images, outputs, shifted(4, 0))) == pytest.approx(0, abs=1e-6)


def test_noise_and_brightness_in_the_stability_loss_count_by_the_networks_slope() -> None:
    images = 0.25 + torch.rand(1, 3, 260, 260) / 2
    unit = fine(images) + 1e-5
    noisy = stability_loss(lambda x: 3 * x, images, 3 * images, shifted(2, 1), noise=0.01)
    assert float(noisy) * (9 * fine(images) + 1e-5) == pytest.approx(9e-4, rel=0.05)
    brighter = stability_loss(torch.neg, images, -images, shifted(2, 1), gain=1.04)
    assert float(brighter) * unit == pytest.approx(float((0.04 * images).square().mean()), rel=0.05)


def test_warps_are_whole_shifts_or_smooth_and_bounded() -> None:
    rng = np.random.default_rng(0)
    warps, gains = zip(*(random_warp(rng) for _ in range(40)), strict=True)
    whole = [bool((warp == warp.round()).all() and warp.flatten(2).std(-1).max() == 0) for warp in warps]
    assert 10 < sum(whole) < 30
    assert max(float(warp.abs().max()) for warp in warps) < 16
    assert all(0.95 <= float(gain) <= 1.05 for gain in gains)
    x = torch.linspace(0, 6, 96).sin()
    smooth = (x[:, None] * x).expand(1, 3, 96, 96) / 2 + 0.5
    bent = next(warp for warp, is_whole in zip(warps, whole, strict=True) if not is_whole)
    assert float(stability_loss(torch.square, smooth, smooth.square(), bent)) * fine(smooth.square()) < 1e-6
    still = stability_loss(lambda x: smooth.square(), smooth, smooth.square(), bent)  # strokes that do not move
    assert float(still) * fine(smooth.square()) > 1e-4
