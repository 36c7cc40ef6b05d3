"""Style swap: the patches that it chooses, the memory that it takes, and the network that makes pictures of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fststyle.encoders.pretrained import load_encoder, random_weights
from fststyle.encoders.truncated import truncated_encoder
from fststyle.encoders.vgg import VGGEncoder
from fststyle.images import to_image
from fststyle.networks import styleswap
from fststyle.networks.styleswap import InverseNet, StyleSwap, swap


def features(seed: int, height: int, width: int, channels: int = 5, batch: int = 1) -> Tensor:
    """Random features, float64, all of them of different directions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)


def searched(content: Tensor, style: Tensor, patch: int, stride: int) -> Tensor:
    """What ``swap`` gives for one picture, by a loop over every pair of patches."""

    def corners(picture: Tensor) -> list[tuple[int, int]]:
        rows, columns = (sorted({*range(0, side - patch + 1, stride), side - patch}) for side in picture.shape[1:])
        return [(y, x) for y in rows for x in columns]

    def at(picture: Tensor, corner: tuple[int, int]) -> Tensor:
        return picture[:, corner[0] : corner[0] + patch, corner[1] : corner[1] + patch]

    candidates = [at(style, corner) for corner in corners(style)]
    sums, counts = torch.zeros_like(content), torch.zeros_like(content)
    for corner in corners(content):
        here = at(content, corner)
        scores = [float((here * one).sum() / (one.norm() + 1e-8)) for one in candidates]
        at(sums, corner).add_(candidates[scores.index(max(scores))])
        at(counts, corner).add_(1)
    return sums / counts


# --- what is hidden -------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_patches_of_which_the_middle_is_hidden_are_no_style(patch: int, stride: int) -> None:
    if stride > patch:
        return
    content, style = features(0, 9, 10), features(1, 11, 12)
    visible = torch.zeros(11, 12, dtype=torch.bool)
    visible[2:8, 3:9] = True
    middle = patch // 2
    content[..., 2 : 2 + patch, 2 : 2 + patch] = style[..., :patch, :patch]  # the best, were it to be seen
    found = swap(content, style, patch, stride, visible=visible)
    reach = style[..., max(0, 2 - middle) : 8 - middle + patch - 1, max(0, 3 - middle) : 9 - middle + patch - 1]
    levels = set(reach.flatten().tolist())
    if stride == patch or patch == 1:  # no two patches overlap but at the border
        assert set(found[..., :patch, :patch].flatten().tolist()) <= levels
    assert not torch.equal(found, swap(content, style, patch, stride))
    assert torch.equal(
        swap(content, style, patch, stride, visible=torch.ones(11, 12, dtype=torch.bool)),
        swap(content, style, patch, stride),
    )


def test_where_no_middle_is_seen_all_patches_stay() -> None:
    content, style = features(0, 9, 10), features(1, 5, 5)
    visible = torch.zeros(5, 5, dtype=torch.bool)
    visible[0, 0] = True  # no patch's middle
    assert torch.equal(swap(content, style, visible=visible), swap(content, style))


def test_pixels_that_are_seen_are_counted_at_each_position() -> None:
    """A position is seen where half of its pixels are."""
    content, style = features(0, 9, 10), features(1, 8, 8)
    positions = torch.zeros(8, 8, dtype=torch.bool)
    positions[1:5, 2:7] = True
    pixels = positions.repeat_interleave(4, 0).repeat_interleave(4, 1)
    pixels[::4], pixels[1::4] = True, pixels[1::4] | (torch.arange(32) % 4 == 0)  # 4 + 1 of 16 pixels more
    assert torch.equal(swap(content, style, visible=pixels), swap(content, style, visible=positions))


# --- the choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "style", "patch", "stride"),
    [
        ((8, 8), (8, 8), 3, 1),
        ((9, 12), (11, 7), 3, 1),
        ((9, 12), (11, 7), 3, 2),
        ((10, 8), (9, 13), 3, 3),
        ((7, 9), (8, 6), 1, 1),
        ((8, 9), (7, 7), 2, 2),
        ((11, 9), (8, 10), 5, 2),
        ((3, 3), (3, 3), 3, 1),
        ((3, 9), (9, 3), 3, 1),
    ],
)
def test_it_is_the_search_over_every_pair(
    content: tuple[int, int], style: tuple[int, int], patch: int, stride: int
) -> None:
    x, y = features(0, *content), features(1, *style)
    expected = searched(x[0], y[0], patch, stride)
    for block in (1, 5, 8, 13, styleswap.BLOCK):
        assert torch.allclose(swap(x, y, patch, stride, block)[0], expected, rtol=0, atol=1e-12)
    assert torch.allclose(swap(x.float(), y.float(), patch, stride)[0].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_picture_swapped_with_itself_stays_as_it_is(stride: int) -> None:
    x = features(0, 13, 10).float()
    assert torch.allclose(swap(x, x, 3, stride), x, rtol=0, atol=1e-6)


def test_a_photograph_swapped_with_itself_stays_as_it_is(astronaut: np.ndarray) -> None:
    """In its even areas float32 alone would take one patch in a hundred for another."""
    photograph = load_encoder("vgg16", "slim")(to_image(astronaut[:256, 128:384]), ["relu3_1"])["relu3_1"]
    assert (swap(photograph, photograph) - photograph).abs().max() < 1e-5
    assert (swap(photograph, photograph.roll(5, 3)) - photograph)[..., 3:-8].abs().max() < 1e-5


def test_a_shifted_copy_is_found_wherever_it_lies() -> None:
    x = features(0, 8, 9).float()
    style = features(1, 20, 22).float()
    style[:, :, 7:15, 4:13] = x
    assert torch.allclose(swap(x, style), x, rtol=0, atol=1e-6)


def test_the_length_of_a_style_patch_does_not_help_it_but_enters_the_result() -> None:
    x = features(0, 8, 8)
    louder = torch.cat([100 * features(1, 8, 8), 3 * x], 3)
    assert torch.allclose(swap(x, louder), 3 * x, rtol=0, atol=1e-9)


def test_of_parallel_patches_the_one_nearest_in_length_is_taken() -> None:
    x = features(0, 6, 6).float()
    others = torch.cat([factor * x for factor in (4.0, 1.25, 1.0, 0.5, 0.999)], 3)
    assert torch.allclose(swap(x, others), x, rtol=0, atol=1e-6)
    assert torch.allclose(swap(1.2 * x, others), 1.25 * x, rtol=0, atol=1e-5)


def test_a_patch_of_zeros_gets_the_shortest() -> None:
    x = features(0, 8, 8).float()
    x[:, :, :, :5] = 0
    style = torch.cat([features(1, 8, 6) + 1, torch.full((1, 5, 8, 3), 0.01)], 3).float()
    found = swap(x, style)
    assert torch.allclose(found[..., :3], torch.full((1, 5, 8, 3), 0.01))
    assert found.isfinite().all()
    assert torch.equal(swap(torch.zeros_like(x), torch.zeros_like(x)), torch.zeros_like(x))


def test_a_coarser_product_changes_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU with TF32: what rounding leaves open is decided in float64."""
    x, y = features(0, 20, 20), features(1, 20, 20)
    expected = swap(x, y)
    product = torch.Tensor.__matmul__

    def coarse(a: Tensor, b: Tensor) -> Tensor:
        return product(a.bfloat16().float(), b.bfloat16().float()) if a.dtype == torch.float32 else product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", coarse)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert torch.equal(swap(x, y), expected)


# --- how it is computed ---------------------------------------------------------------------------


def test_blocks_change_nothing() -> None:
    x, y = features(0, 24, 17, 8).float(), features(1, 19, 26, 8).float()
    whole = swap(x, y)
    for block in (9, 100, 333):
        assert torch.equal(swap(x, y, block=block), whole)


def test_a_batch_is_swapped_picture_by_picture_with_one_style_or_each_with_its_own() -> None:
    x, y = features(0, 7, 8, batch=3).float(), features(1, 9, 6, batch=3).float()
    each = swap(x, y)
    one = swap(x, y[:1])
    for i in range(3):
        assert torch.equal(each[i : i + 1], swap(x[i : i + 1], y[i : i + 1]))
        assert torch.equal(one[i : i + 1], swap(x[i : i + 1], y[:1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32_even_below_autocast(dtype: torch.dtype) -> None:
    x, y = features(0, 8, 8).to(dtype), features(1, 8, 8).to(dtype)
    expected = swap(x.double(), y.double()).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = swap(x, y)
    assert found.dtype == dtype
    assert torch.allclose(found, expected, rtol=1e-2 if dtype.itemsize == 2 else 1e-6, atol=1e-6)


def test_the_features_given_are_left_alone_and_no_graph_remains() -> None:
    x, y = features(0, 8, 8).requires_grad_(), features(1, 8, 8)
    before = x.detach().clone(), y.clone()
    assert not swap(x, y).requires_grad
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_no_more_patches_are_held_at_a_time_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    real = styleswap._Patches.directions

    def watched(*arguments: object) -> Tensor:
        found: Tensor = real(*arguments)  # type: ignore[arg-type]
        held.append(len(found))
        return found

    monkeypatch.setattr(styleswap._Patches, "directions", watched)
    swap(features(0, 20, 20), features(1, 20, 20), block=64)
    assert max(held) == 64
    assert len(held) > 2 * 18 * 18 / 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"patch": 0}, "patch is 0; expected a whole number of at least 1"),
        ({"patch": 2.5}, "patch is 2.5; expected a whole number"),
        ({"stride": 0}, "stride is 0; expected a whole number of at least 1"),
        ({"stride": 4}, "stride is 4 and patch 3; expected a stride of at most the patch"),
        ({"patch": 9}, "the content's features are 9×8; expected at least 9×9 for patch=9"),
        ({"style": features(1, 2, 20)}, "the style's features are 20×2; expected at least 3×3 for patch=3"),
        ({"style": features(1, 8, 8, 4)}, "with as many channels"),
        ({"style": features(1, 8, 8)[0]}, "expected (B, C, H, W) twice"),
        ({"style": features(1, 8, 8, batch=3)}, "found 3 styles for 2 contents; expected one, or as many"),
        ({"block": 0}, "block is 0; expected at least 1"),
    ],
)
def test_what_cannot_be_swapped_is_refused_in_one_line(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        swap(**{"content": features(0, 8, 9, batch=2), "style": features(1, 8, 8), **words})  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- pictures from features -----------------------------------------------------------------------


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_inverse_network_has_the_papers_parameters() -> None:
    assert count(InverseNet()) == 555_075
    assert count(InverseNet(64)) == 333_891
    assert count(InverseNet(norm="instance")) == 555_075 + 2 * (128 + 128 + 64 + 64)


@pytest.mark.parametrize("shape", [(1, 6, 4, 4), (2, 6, 5, 9), (3, 6, 1, 7)])
def test_the_inverse_network_gives_a_picture_of_four_times_the_size(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = InverseNet(6, "instance")
    z = torch.rand(shape)
    image = network(z)
    assert image.shape == (shape[0], 3, 4 * shape[2], 4 * shape[3])
    assert image.min() >= 0
    assert image.max() <= 1
    linear = InverseNet(6, "instance", "linear")
    linear.load_state_dict(network.state_dict())
    assert torch.allclose(torch.sigmoid(linear(z)), image)
    assert InverseNet(**network.config).config == network.config  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"channels": 0}, "channels is 0"),
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"output": "tanh"}, "output is 'tanh'; expected sigmoid or linear"),
    ],
)
def test_an_inverse_network_that_cannot_be_is_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InverseNet(**words)  # type: ignore[arg-type]


def test_features_of_another_shape_are_refused() -> None:
    for shape in ((1, 5, 4, 4), (6, 4, 4)):
        with pytest.raises(ValueError, match=r"expected \(B, 6, h, w\)"):
            InverseNet(6)(torch.rand(shape))


# --- from picture to picture ----------------------------------------------------------------------


@pytest.fixture
def model(encoder: VGGEncoder) -> StyleSwap:
    torch.manual_seed(0)
    return StyleSwap(encoder, InverseNet(8)).eval()


@pytest.mark.parametrize(
    ("content", "style"), [((16, 16), (16, 16)), ((17, 31), (40, 23)), ((50, 18), (19, 16)), ((33, 33), (64, 20))]
)
def test_a_picture_comes_back_at_its_size_whatever_the_styles(
    model: StyleSwap, content: tuple[int, int], style: tuple[int, int]
) -> None:
    image = model(torch.rand(2, 3, *content), torch.rand(1, 3, *style))
    assert image.shape == (2, 3, *content)


def test_it_is_encoder_swap_and_inverse_network(model: StyleSwap, encoder: VGGEncoder) -> None:
    content, style = torch.rand(1, 3, 24, 32), torch.rand(1, 3, 28, 20)
    x, y = (encoder(image, ["relu3_1"])["relu3_1"] for image in (content, style))
    assert torch.equal(model(content, style, 2, 2), model.inverse(swap(x, y, 2, 2)))
    assert torch.equal(model(content, content), model.inverse(swap(x, x)))


@pytest.mark.parametrize("layer", ["conv3_2", "relu3_3", "pool2"])
def test_other_layers_of_that_size_serve(encoder: VGGEncoder, layer: str) -> None:
    channels = 6 if layer == "pool2" else 8
    assert StyleSwap(encoder, InverseNet(channels), layer)(torch.rand(1, 3, 16, 20), torch.rand(1, 3, 16, 16)).shape


def test_a_layer_that_does_not_fit_is_refused_in_one_line(encoder: VGGEncoder) -> None:
    for layer, message in (
        ("relu2_2", "relu2_2 of custom has 6 channels at 1/2 of the size; the inverse network takes 8 at 1/4"),
        ("relu4_1", "relu4_1 of custom has 10 channels at 1/8"),
        ("relu9_1", "custom has no layer 'relu9_1'; expected one of conv1_1"),
    ):
        with pytest.raises(ValueError, match=message):
            StyleSwap(encoder, InverseNet(8), layer)
    with pytest.raises(ValueError, match="has 8 channels at 1/4 of the size; the inverse network takes 256"):
        StyleSwap(encoder, InverseNet())


def test_a_picture_too_small_for_the_patch_is_refused(model: StyleSwap) -> None:
    small, large = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match="the style's features are 4×4; expected at least 5×5 for patch=5"):
        model(large, small, 5)
    with pytest.raises(ValueError, match="15×16 pixels; expected at least 16×16"):
        model(large, torch.rand(1, 3, 16, 15))
    with pytest.raises(ValueError, match="stride is 9 and patch 3"):
        model(large, small, 3, 9)


def test_only_what_is_needed_of_an_encoder_travels(encoder: VGGEncoder, tmp_path: Path) -> None:
    weights, told = truncated_encoder(encoder, "relu3_1")
    convolutions = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
    assert {key.split(".")[0] for key in weights} == {"preprocess", *convolutions}
    assert told["layer"] == "relu3_1"
    cut = VGGEncoder(weights, told["architecture"], told["pooling"], told["padding"], told["name"])
    image = torch.rand(1, 3, 20, 24)
    assert torch.equal(cut(image, ["relu3_1"])["relu3_1"], encoder(image, ["relu3_1"])["relu3_1"])
    with pytest.raises(ValueError, match="no layer 'relu9_9'"):
        truncated_encoder(encoder, "relu9_9")
    assert len(truncated_encoder(VGGEncoder(random_weights("vgg19", widths=(2,) * 5), "vgg19"), "relu4_1")[0]) == 2 * 10
