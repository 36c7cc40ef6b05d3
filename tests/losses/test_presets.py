"""Every preset computes what its paper or code says."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hydra.errors import InstantiationException
from torch import Tensor

from fststyle.encoders.pretrained import load_encoder, random_weights
from fststyle.encoders.vgg import VGGEncoder
from fststyle.losses import PerceptualLoss, gram_matrix, measure_normalizers
from fststyle.resources import resource
from loss_terms import PICTURE, PRESETS, build, compute_loss


def flat(features: Tensor) -> Tensor:
    """F of one image as the papers write it, N × M."""
    return features[0].flatten(1)


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
    for name, loss in (("pixel", build("pixel", None)), ("feature", build("feature", encoder))):
        loss.normalizers = measure_normalizers(loss, [images], {})
        other = images.roll(1, 0)
        total = loss(images, content=loss.content_targets(other), pixels=other).total
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
    balanced = {"balanced", "balanced_relu3_3", "balanced_relu4_3"}
    assert names == {*PRESETS, *balanced, "feature", "inverse", "pixel", "swap"}


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


def test_balanced_over_a_shallow_encoder_names_a_preset_that_suits_it() -> None:
    shallow = load_encoder("vgg16", "slim")
    with pytest.raises(InstantiationException, match=r"relu5_1'.*; for an encoder .* loss=balanced_relu3_3"):
        build("balanced", shallow)
    assert build("balanced_relu3_3", shallow).content_layers == {"relu3_3": 1.0}
