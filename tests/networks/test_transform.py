"""TransformNet against the paper's table, and every preset at every kind of size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from fststyle.networks.blocks import IMAGENET_MEAN, ColorTransform, InstanceNorm
from fststyle.networks.transform import TransformNet
from fststyle.resources import resource
from marks import rest_slow

#: Those that are a TransformNet; the others have tests of their own.
PRESETS = sorted(
    path.stem
    for path in (resource("conf") / "network").glob("*.yaml")
    if not path.stem.startswith(("superres", "inverse", "arbitrary"))
)


@cache
def config(name: str) -> DictConfig:
    """What ``fststyle train network=name`` makes of its group."""
    with initialize_config_dir(str(resource("conf")), version_base="1.3"):
        return compose("train", [f"network={name}"]).network


def preset(name: str, **changes: Any) -> TransformNet:
    network = instantiate(config(name), **changes)
    assert isinstance(network, TransformNet)
    return network


@pytest.fixture
def meta() -> Iterator[None]:
    """Shapes without numbers: full-width networks at no cost."""
    with torch.device("meta"):
        yield


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# --- the paper's network -------------------------------------------------------------------------


@pytest.mark.usefixtures("meta")
def test_parameter_counts_are_the_published_ones() -> None:
    assert parameters(preset("johnson")) == 1_679_235
    assert parameters(preset("johnson_instance")) == 1_679_235
    assert parameters(preset("johnson", width=16)) == 424_899
    assert parameters(preset("resnet")) == 1_679_235
    assert parameters(preset("resnet_half")) == 424_899


@pytest.mark.usefixtures("meta")
def test_the_papers_layers_have_the_papers_sizes() -> None:
    network = preset("johnson")
    seen: list[tuple[int, int, int]] = []

    def note(_: nn.Module, __: object, output: torch.Tensor) -> None:
        channels, height, width = output.shape[1:]
        seen.append((channels, height, width))

    network.encode[0].register_forward_pre_hook(lambda _, inputs: note(network, None, inputs[0]))
    for layer in (*network.encode, *network.transform, *network.decode):
        layer.register_forward_hook(note)
    output = network(torch.empty(1, 3, 256, 256))
    # Johnson et al. 2016, supplementary material, Table 1.
    assert seen == [
        (3, 336, 336),
        (32, 336, 336),
        (64, 168, 168),
        (128, 84, 84),
        (128, 80, 80),
        (128, 76, 76),
        (128, 72, 72),
        (128, 68, 68),
        (128, 64, 64),
        (64, 128, 128),
        (32, 256, 256),
        (3, 256, 256),
    ]
    assert output.shape == (1, 3, 256, 256)


def kinds(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


@pytest.mark.usefixtures("meta")
def test_presets_differ_where_they_say() -> None:
    paper, later, recommended = preset("johnson"), preset("johnson_instance"), preset("resnet")
    norms = 3 + 2 * 5 + 2
    assert (kinds(paper, nn.BatchNorm2d), kinds(paper, InstanceNorm)) == (norms, 0)
    assert (kinds(later, nn.BatchNorm2d), kinds(later, InstanceNorm)) == (0, norms)
    assert (kinds(recommended, nn.BatchNorm2d), kinds(recommended, InstanceNorm)) == (0, norms)
    assert [kinds(network, nn.ConvTranspose2d) for network in (paper, later, recommended)] == [2, 2, 0]
    assert later.config == {**paper.config, "norm": "instance"}


@pytest.mark.usefixtures("meta")
def test_the_default_network_is_the_recommended_preset() -> None:
    assert preset("resnet").config == TransformNet().config


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", rest_slow([[16, 16], [17, 31], [511, 767], [1080, 1920]], 2))
@torch.inference_mode()
def test_pictures_come_back_at_their_size(name: str, size: list[int]) -> None:
    network = preset(name, width=2).eval()
    output = network(torch.rand(1, 3, *size))
    assert output.shape == (1, 3, *size)
    assert output.isfinite().all()


@pytest.mark.parametrize("name", PRESETS)
@torch.inference_mode()
def test_every_remainder_of_four_comes_back_at_its_size(name: str) -> None:
    network = preset(name, width=1).eval()
    for height in range(16, 20):
        for width in range(29, 33):
            assert network(torch.rand(1, 3, height, width)).shape == (1, 3, height, width)


@pytest.mark.parametrize("shape", [(1, 3, 15, 64), (1, 3, 64, 15), (3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64)])
def test_what_is_no_image_or_too_small_is_refused(network: TransformNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        network(torch.zeros(shape))


def pass_through(border: int, upsampling: str, padding: str) -> TransformNet:
    """A network that shows every fourth pixel, four times as large: nothing but sampling, no mixing."""
    network = TransformNet(3, 2, "none", padding, upsampling, border, "linear")  # type: ignore[arg-type]
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.zero_()
                assert module.bias is not None
                module.bias.zero_()
                for c in range(3):
                    if isinstance(module, nn.ConvTranspose2d):
                        module.weight[c, c, 1:, 1:] = 1  # each pixel and the three that follow it
                    else:
                        middle = module.kernel_size[0] // 2
                        module.weight[c, c, middle, middle] = 1
        for block in network.transform:
            block.conv.conv.weight.zero_()
    return network


@pytest.mark.parametrize("border", [0, 16])
@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])  # bilinear blurs
@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_nothing_is_shifted_on_its_way_through(border: int, upsampling: str, padding: str) -> None:
    image = torch.zeros(1, 3, 45, 67)
    image[:, :, 20:, 36:] = 1
    output = pass_through(border, upsampling, padding)(image)
    # 0 is less than the mean and stopped by the ReLU, which leaves the mean; 1 comes back as it was.
    expected = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).expand(1, 3, 45, 67).clone()
    expected[:, :, 20:, 36:] = 1
    assert torch.allclose(output, expected, atol=1e-6)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
@torch.inference_mode()
def test_at_inference_a_picture_does_not_depend_on_its_batch(name: str) -> None:
    torch.manual_seed(0)
    network = preset(name, width=2).eval()
    batch = torch.rand(3, 3, 21, 34)
    together = network(batch)
    assert torch.allclose(together, torch.cat([network(batch[i : i + 1]) for i in range(3)]), atol=1e-5)


def test_with_instance_norm_not_even_in_training() -> None:
    torch.manual_seed(0)
    network = preset("resnet", width=2).train()
    batch = torch.rand(3, 3, 21, 34)
    assert torch.allclose(network(batch), torch.cat([network(batch[i : i + 1]) for i in range(3)]), atol=1e-5)


def ending_in(output: str, bias: float) -> list[float]:
    """The colour that a network gives whose last convolution is ``bias`` everywhere."""
    network = TransformNet(2, 1, output=output).eval()
    last = network.decode[-1].conv
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(bias)
        image = network(torch.rand(1, 3, 16, 16))
    colours: list[float] = image[0].flatten(1).mean(dim=1).tolist()
    return colours


def test_a_sigmoid_ends_in_the_unit_interval() -> None:
    assert ending_in("sigmoid", 0) == pytest.approx([0.5] * 3)
    assert ending_in("sigmoid", 50) == pytest.approx([1] * 3)
    assert ending_in("sigmoid", -50) == pytest.approx([0] * 3, abs=1e-6)


def test_tanh_ends_150_levels_around_the_imagenet_mean() -> None:
    mean = [123.68 / 255, 116.779 / 255, 103.939 / 255]
    assert ending_in("tanh", 0) == pytest.approx(mean)
    assert ending_in("tanh", 50) == pytest.approx([m + 150 / 255 for m in mean])
    assert ending_in("tanh", -50) == pytest.approx([m - 150 / 255 for m in mean])


def test_a_linear_output_has_no_bound() -> None:
    assert ending_in("linear", 7)[0] == pytest.approx(7 + 123.68 / 255)


def test_the_picture_given_is_not_changed(network: TransformNet) -> None:
    image = torch.rand(1, 3, 18, 18)
    before = image.clone()
    network(image)
    assert torch.equal(image, before)


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"residual_blocks": -1}, "residual_blocks -1"),
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"padding": "none"}, "padding is 'none'"),
        ({"padding": "circular"}, "padding is 'circular'"),
        ({"upsampling": "bicubic"}, "upsampling is 'bicubic'"),
        ({"border": 24}, "border is 24; expected 0 .* or 40"),
        ({"border": 40, "residual_blocks": 4}, "border is 40; expected 0 .* or 32"),
        ({"output": "relu"}, "output is 'relu'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformNet(**{"width": 2, **arguments})


def test_its_config_rebuilds_it() -> None:
    network = TransformNet(3, 2, "batch", "zeros", "transposed", 16, "tanh")
    again = TransformNet(**network.config)  # type: ignore[arg-type]
    again.load_state_dict(network.state_dict())
    assert again.config == network.config


def several(styles: int = 3) -> TransformNet:
    """A network for several styles whose norms differ."""
    network = TransformNet(width=4, residual_blocks=1, styles=styles, colors=True)
    for value in network.style_parameters().values():
        torch.nn.init.normal_(value)
    return network.eval()


def test_each_picture_of_a_batch_gets_its_own_style() -> None:
    network, images, mixture = several(), torch.rand(3, 3, 24, 33), torch.eye(3)[[2, 0, 1]]
    together = network(images, mixture)
    for image, row, result in zip(images, mixture, together, strict=True):
        assert torch.allclose(network.of_mixture(row)(image[None])[0], result, atol=1e-6)


def test_a_mixture_of_one_style_has_that_styles_norms_to_the_bit() -> None:
    network = several()
    for name, value in network.style_parameters().items():
        assert torch.equal(network.of_mixture(torch.tensor([0.0, 1.0, 0.0])).state_dict()[name], value[1])


def test_a_color_transform_is_a_matrix_and_a_shift_of_each_pixel() -> None:
    transform, x = ColorTransform(), torch.rand(2, 3, 4, 5)
    assert torch.equal(transform(x), x)
    with torch.no_grad():
        transform.weight.copy_(torch.arange(9.0))
        transform.bias.copy_(torch.tensor([0.5, 0.0, -1.0]))
    red, green, blue = x[1, :, 2, 3]
    found = transform(x)[1, :, 2, 3]
    expected = [green + 2 * blue + 0.5, 3 * red + 4 * green + 5 * blue, 6 * red + 7 * green + 8 * blue - 1]
    assert torch.allclose(found, torch.stack(expected))


def test_colors_are_added_without_a_change() -> None:
    network, image, row = TransformNet(width=4, residual_blocks=1, styles=2), torch.rand(1, 3, 24, 33), torch.eye(2)[:1]
    colored = network.eval().with_colors()
    assert torch.equal(colored(image, row), network(image, row))
    assert colored.config == {**network.config, "colors": True}
    assert colored.with_colors() is colored


def test_a_mixture_is_between_its_styles() -> None:
    network = several(2)
    for name, value in network.style_parameters().items():
        mixed = network.of_mixture(torch.tensor([0.25, 0.75])).state_dict()[name]
        assert torch.allclose(mixed, 0.25 * value[0] + 0.75 * value[1])


@pytest.mark.parametrize("mixture", [None, torch.ones(3), torch.ones(1, 2)])
def test_several_styles_take_a_mixture_of_them(mixture: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 3\)"):
        several()(torch.rand(1, 3, 24, 24), mixture)


def test_one_style_takes_none() -> None:
    with pytest.raises(ValueError, match="expected none"):
        TransformNet(width=4, residual_blocks=1)(torch.rand(1, 3, 24, 24), torch.ones(1, 1))


@pytest.mark.parametrize("arguments", [{"styles": 0}, {"styles": 2, "norm": "batch"}])
def test_styles_are_counted_and_need_instance_norms(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="styles is"):
        TransformNet(width=4, **arguments)
