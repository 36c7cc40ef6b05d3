"""How much of a picture looks painted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle.color import match_color
from fststyle.encoders.files import preprocessing
from fststyle.encoders.pretrained import random_weights
from fststyle.encoders.vgg import VGGEncoder, layer_names
from fststyle.evaluation.style import LAYERS, SCALES, SIZE, WINDOW, StyleDistance, window_statistics
from fststyle.images import to_image

SMALL = {"layers": ("relu1_1", "relu2_1"), "size": 64, "window": 16}


def seeing_red(filters: int = 1) -> VGGEncoder:
    """All its filters, of relu1_1, are the red channel."""
    weight = torch.zeros(filters, 3, 3, 3)
    weight[:, 0, 1, 1] = 1
    bias = torch.zeros(filters)
    return VGGEncoder({"conv1_1.weight": weight, "conv1_1.bias": bias, **preprocessing((0, 0, 0), (1, 1, 1))})


def red(*values: float, pixels: int = 4) -> Tensor:
    """An image 16 high whose red channel has these values from left to right, each so wide; green and blue are 0."""
    line = torch.tensor(values).repeat_interleave(pixels).expand(16, -1)
    return torch.stack([line, line * 0, line * 0])[None]


@pytest.fixture
def own_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures keep their colours, so that values stay those that were given."""
    monkeypatch.setattr("fststyle.evaluation.style.match_color", lambda image, _: image)


@pytest.fixture
def deep() -> VGGEncoder:
    """A narrow VGG-19 with random weights that reaches relu5_1."""
    return VGGEncoder(random_weights("vgg19", widths=(4, 4, 6, 6, 6)), "vgg19")


@pytest.fixture
def photograph(astronaut: np.ndarray) -> Tensor:
    return to_image(astronaut[:240, :320].copy())


@pytest.fixture
def painting(astronaut: np.ndarray) -> Tensor:
    return to_image(np.ascontiguousarray(astronaut[300:, 100:400, ::-1]))


# --- windows --------------------------------------------------------------------------------------


def test_a_window_has_mean_and_deviation_of_each_channel() -> None:
    found = window_statistics(red(0.0, 0.2, 1.0, pixels=8)[..., :8, :], seeing_red(), ["relu1_1"], window=8)
    # Windows 4 pixels apart; divided by √2, so that a squared distance is the mean over the two statistics.
    wanted = torch.tensor([[0.0, 0.0], [0.1, 0.1], [0.2, 0.0], [0.6, 0.4], [1.0, 0.0]]) / 2**0.5
    assert torch.allclose(found.float(), wanted, atol=1e-6)


def test_windows_reach_every_border_and_overlap_by_half(deep: VGGEncoder) -> None:
    image = torch.rand(1, 3, 112, 208)
    found = window_statistics(image, deep, LAYERS)
    # 7 × 13 positions of 16 pixels, windows of 6: they begin at 0, 1 and at 0, 2, 5, 7 (7 / 3, rounded).
    assert len(found) == 2 * 4
    for layer in LAYERS:
        features = deep(image, [layer])[layer].double()
        stride = 112 // features.shape[2]
        last = features[0, :, 16 // stride :, 112 // stride :].flatten(1)
        assert last.shape[1] == (96 // stride) ** 2
        statistics = torch.cat([last.mean(1), last.std(1, correction=0)])
        one = window_statistics(image, deep, [layer], 96)
        if layer == "relu5_1":  # whose own grid is that of all
            assert torch.allclose(one[-1], statistics / len(statistics) ** 0.5)
        width = len(statistics)
        offset = sum(2 * (4 if name[4] in "12" else 6) for name in LAYERS[: LAYERS.index(layer)])
        assert torch.allclose(found[-1, offset : offset + width], statistics / (width * len(LAYERS)) ** 0.5)


def test_neither_wide_nor_many_layers_make_distances_larger() -> None:
    image = torch.rand(1, 3, 16, 24)
    alone = window_statistics(image, seeing_red(), ["relu1_1"], 8)
    for encoder, layers in ((seeing_red(3), ["relu1_1"]), (seeing_red(), ["conv1_1", "relu1_1"])):
        found = window_statistics(image, encoder, layers, 8)
        assert found.shape[1] > alone.shape[1]
        assert torch.allclose(torch.cdist(found, found), torch.cdist(alone, alone), atol=1e-6)


# --- figures --------------------------------------------------------------------------------------


#: Windows of 4 pixels, 2 pixels apart, at the pictures' own size: 7 in a row of 16.
TOY = {"layers": ("relu1_1",), "size": 16, "window": 4, "scales": (1.0,)}


@pytest.mark.usefixtures("own_colors")
def test_the_figures_are_those_worked_out_by_hand() -> None:
    painting, photograph, result = red(0.0, 0.0, 0.0, 0.0), red(0.4, 0.4, 0.4, 0.4), red(0.0, 0.0, 0.2, 0.2)
    found = StyleDistance(photograph, painting, seeing_red(), **TOY)(result)
    # Of the result's windows 3 are the painting's, 3 are off by 0.2 in the mean, and one by 0.1 in both statistics.
    assert found.everywhere == pytest.approx((3 * 0 + 3 * 0.2**2 / 2 + 0.1**2) / 7 / (0.4**2 / 2))
    assert found.all_of_it == pytest.approx(0, abs=1e-9)  # nothing of the painting is missing


@pytest.mark.usefixtures("own_colors")
def test_what_a_result_lacks_of_the_painting_is_in_the_second_figure() -> None:
    painting, photograph, result = red(0.0, 0.0, 0.2, 0.2), red(0.4, 0.4, 0.4, 0.4), red(0.0, 0.0, 0.0, 0.0)
    found = StyleDistance(photograph, painting, seeing_red(), **TOY)(result)
    assert found.everywhere == pytest.approx(0, abs=1e-9)
    lacking = 3 * 0 + 3 * 0.2**2 / 2 + 0.1**2
    photographs = 3 * 0.4**2 / 2 + 3 * 0.2**2 / 2 + (0.3**2 + 0.1**2) / 2
    assert found.all_of_it == pytest.approx(lacking / photographs)


def test_the_painting_itself_measures_0(deep: VGGEncoder, photograph: Tensor, painting: Tensor) -> None:
    found = StyleDistance(photograph, painting, deep)(painting)
    assert found.everywhere == pytest.approx(0, abs=1e-6)
    assert found.all_of_it == pytest.approx(0, abs=1e-6)


def test_the_photograph_measures_1_in_its_own_colours_and_in_the_paintings(
    encoder: VGGEncoder, photograph: Tensor, painting: Tensor
) -> None:
    painting = painting * 0.3 + 0.35  # so dull that no value needs to be clamped
    distance = StyleDistance(photograph, painting, encoder, **SMALL)
    assert vars(distance(photograph)) == {"everywhere": 1.0, "all_of_it": 1.0}
    recolored = distance(match_color(photograph, painting))
    assert recolored.everywhere == pytest.approx(1, abs=0.01)
    assert recolored.all_of_it == pytest.approx(1, abs=0.01)


def test_colours_alone_change_nothing(encoder: VGGEncoder, photograph: Tensor, painting: Tensor) -> None:
    distance = StyleDistance(photograph, painting, encoder, **SMALL)
    half = to_half(photograph, painting)
    dull = distance(half * 0.5 + 0.2)
    assert dull.everywhere == pytest.approx(distance(half).everywhere, rel=0.02)
    assert dull.everywhere < 0.9


def to_half(photograph: Tensor, painting: Tensor) -> Tensor:
    """The photograph, in the painting's colours, whose left half is the painting's."""
    mixed = match_color(photograph, painting)
    mixed[..., :160] = painting[..., :160, :160].repeat(1, 1, 2, 1)[:, :, :240]
    return mixed


def test_more_scales_of_the_painting_can_only_come_nearer(
    encoder: VGGEncoder, photograph: Tensor, painting: Tensor
) -> None:
    one = StyleDistance(photograph, painting, encoder, **SMALL, scales=(1.0,))
    three = StyleDistance(photograph, painting, encoder, **SMALL)
    assert three._one[0] < one._one[0]
    assert three._one[1] == one._one[1]
    assert [round(SIZE * scale) for scale in SCALES] == [448, 640, 896]


def test_pictures_are_measured_at_one_size(encoder: VGGEncoder, photograph: Tensor, painting: Tensor) -> None:
    distance = StyleDistance(photograph, painting, encoder, **SMALL)
    large = torch.nn.functional.interpolate(photograph, scale_factor=2, mode="nearest")
    assert distance(large).everywhere == pytest.approx(1, abs=0.01)


# --- refusals -------------------------------------------------------------------------------------


def test_an_encoder_that_ends_too_early_is_named(photograph: Tensor, painting: Tensor) -> None:
    weights = {key: value for key, value in random_weights("vgg16", widths=(2,) * 5).items() if key[4] != "5"}
    shallow = VGGEncoder(weights, name="shallow")
    with pytest.raises(ValueError, match=r"^shallow ends at pool4 and has no relu5_1; use an encoder that reaches it$"):
        StyleDistance(photograph, painting, shallow)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layers": ()}, "found no layers"),
        ({"window": 15}, "windows are of 15 pixels; expected a multiple of 2"),
        ({"window": 0}, "windows are of 0 pixels"),
        ({"window": 56}, "the painting: 64×45 pixels, as it is measured, have no window of 56×56"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    changes: dict[str, object], told: str, encoder: VGGEncoder, photograph: Tensor, painting: Tensor
) -> None:
    with pytest.raises(ValueError, match=told):
        StyleDistance(photograph, painting, encoder, **{**SMALL, **changes})  # type: ignore[arg-type]


def test_pictures_that_cannot_be_measured_are_refused(
    encoder: VGGEncoder, photograph: Tensor, painting: Tensor
) -> None:
    distance = StyleDistance(photograph, painting, encoder, **SMALL)
    with pytest.raises(ValueError, match="the result: 64×13 pixels, as it is measured, have no window of 16×16"):
        distance(photograph[:, :, :64])
    with pytest.raises(ValueError, match="the result: found a batch of 2 images"):
        distance(photograph.repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match="expected \\(B, 3, H, W\\)"):
        distance(photograph[:, :1])
    with pytest.raises(ValueError, match="the photograph cannot be told from the painting"):
        StyleDistance(painting, painting, encoder, **SMALL)


def test_the_layers_are_those_of_vgg19_one_a_block() -> None:
    assert set(LAYERS) <= set(layer_names("vgg19")) & set(layer_names("vgg16"))
    assert WINDOW % 16 == 0  # the stride of relu5_1
