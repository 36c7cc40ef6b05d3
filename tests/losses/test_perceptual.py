"""PerceptualLoss: batches, precision, side effects, and which terms count."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle.encoders.pretrained import load_encoder, random_weights
from fststyle.encoders.vgg import VGGEncoder, mean_activations, normalize_activations
from fststyle.losses import PerceptualLoss, content_loss, gram_matrix, measure_normalizers, total_variation
from loss_terms import STYLE_LAYERS, compute_loss, crop, double, everything


class Recorder(VGGEncoder):
    """An encoder that writes down which layers it is asked for."""

    def __init__(self) -> None:
        super().__init__(random_weights("vgg16", widths=(4, 4, 4, 4, 4)), "vgg16")
        self.asked: list[set[str]] = []

    def forward(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        layers = set(layers)
        self.asked.append(layers)
        return super().forward(image, layers)


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
        ({"hue_weight": -0.5}, "the weight of hue is -0.5; expected a number ≥ 0"),
        ({"hue_block": 12}, "hue_block is 12; expected 1, 2, 4, 8, 16 or 32 pixels"),
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
