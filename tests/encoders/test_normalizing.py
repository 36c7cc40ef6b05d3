"""Filters that are scaled to mean activation 1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder, mean_activations, normalize_activations
from fststyle.images import to_image


def activations(encoder: VGGEncoder, pictures: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Mean of every ReLU's channels, an image at a time, so that each counts the same."""
    for layer in [name for name in encoder.layers if name.startswith("relu")]:
        singles = [single for batch in pictures for single in batch.split(1)]
        yield layer, torch.stack([encoder(x, [layer])[layer].double().mean((0, 2, 3)) for x in singles]).mean(0)


@pytest.fixture
def pictures(astronaut: np.ndarray) -> list[Tensor]:
    """Three images of two sizes, in two batches."""
    pair = [to_image(np.ascontiguousarray(astronaut[y : y + 128 : 4, 100:228:4])) for y in (0, 250)]
    return [torch.cat(pair), to_image(np.ascontiguousarray(astronaut[100:292:4, 60:300:4]))]


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_normalised_filters_have_mean_activation_one(pictures: list[Tensor], pooling: Any, padding: Any) -> None:
    encoder = VGGEncoder(random_weights("vgg19", seed=1, widths=(16,) * 5), "vgg19", pooling, padding)
    before = dict(activations(encoder, pictures))
    normalized = normalize_activations(encoder, mean_activations(encoder, pictures))
    assert (normalized.pooling, normalized.padding, normalized.layers) == (pooling, padding, encoder.layers)
    alive = 0
    for layer, mean in activations(normalized, pictures):
        above = before[layer] > 1.01e-3 * before[layer].mean()
        alive += int(above.sum())
        torch.testing.assert_close(mean[above], torch.ones_like(mean[above]), rtol=1e-4, atol=0)
        assert mean[~above].lt(1.02).all()
    assert alive > 0.7 * 16 * 16


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_normalising_changes_each_channels_scale_and_nothing_else(pictures: list[Tensor], pooling: Any) -> None:
    weights = random_weights("vgg16", seed=2, widths=(8,) * 5)
    for key, value in weights.items():
        if key.startswith("conv") and key.endswith("bias"):
            value.fill_(0.5)  # so that nearly every filter fires
    encoder = VGGEncoder(weights, "vgg16", pooling)
    normalized = normalize_activations(encoder, mean_activations(encoder, pictures))
    image = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))  # not what it was measured on
    before, after = encoder(image, encoder.layers), normalized(image, encoder.layers)
    measured = dict(activations(encoder, pictures))
    for layer, was in before.items():
        scale = (was * after[layer]).sum((0, 2, 3)) / was.square().sum((0, 2, 3))
        error = (after[layer] - was * scale.view(-1, 1, 1)).abs().amax((0, 2, 3)) / after[layer].abs().amax((0, 2, 3))
        fires = was.abs().amax((0, 2, 3)) > 0.05 * was.abs().max()
        assert fires.sum() >= 5, layer
        assert error[fires].max() < 1e-4, layer
        if layer in measured:
            mean = measured[layer].clamp_min(1e-3 * float(measured[layer].mean()))  # the floor
            torch.testing.assert_close(scale[fires], (1 / mean).float()[fires], rtol=1e-4, atol=0)


def test_normalising_leaves_the_encoder_as_it_was(encoder: VGGEncoder, pictures: list[Tensor]) -> None:
    before = {key: value.clone() for key, value in encoder.weights().items()}
    normalize_activations(encoder, mean_activations(encoder, pictures))
    assert all(torch.equal(value, before[key]) for key, value in encoder.weights().items())


def test_a_filter_that_never_fires_is_scaled_by_the_floor(pictures: list[Tensor]) -> None:
    weights = random_weights("vgg16", widths=(8,) * 5)
    weights["conv2_1.bias"][3] = -1e4
    encoder = VGGEncoder(weights)
    means = mean_activations(encoder, pictures)
    assert means["conv2_1"][3] == 0
    normalized = normalize_activations(encoder, means, floor=0.01)
    floor = 0.01 * means["conv2_1"].mean()
    assert normalized.weights()["conv2_1.bias"][3].item() == pytest.approx(-1e4 / floor.item(), rel=1e-5)
    assert all(value.isfinite().all() for value in normalized.weights().values())


def test_means_count_every_image_the_same_whatever_its_size() -> None:
    """One filter that passes red on: means .2 and .4 of a small pair, .9 of a large image."""
    weights = random_weights("vgg16", widths=(1,) * 5)
    weights["preprocess.weight"], weights["preprocess.bias"] = torch.eye(3), torch.zeros(3)
    weights = {key: value for key, value in weights.items() if key[:7] in ("preproc", "conv1_1")}
    weights["conv1_1.weight"] = torch.zeros(1, 3, 3, 3)
    weights["conv1_1.weight"][0, 0, 1, 1] = 1
    pair = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.4)])
    means = mean_activations(VGGEncoder(weights), [pair, torch.full((1, 3, 32, 40), 0.9)])
    assert means["conv1_1"].item() == pytest.approx(1.5 / 3)


def test_means_of_nothing_are_refused(encoder: VGGEncoder) -> None:
    with pytest.raises(ValueError, match="no images were given to measure mean activations on"):
        mean_activations(encoder, [])
