"""Building blocks: padding against numpy's, the norm against torch's, sums and sizes by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.networks.blocks import Conv, ConvBlock, InstanceNorm, ResidualBlock, UpBlock, gaussian_blur, make_norm
from fststyle.padding import _Reflected, reflection_pad

PADS = [(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 0, 3), (4, 5, 6, 7), (40, 41, 40, 43), (0, 25, 13, 0)]


def zero(*convolutions: nn.Module) -> None:
    for convolution in convolutions:
        for parameter in convolution.parameters():
            nn.init.zeros_(parameter)


# --- blur ----------------------------------------------------------------------------------------


def test_a_blur_keeps_the_precision_of_the_image_under_autocast() -> None:
    """oneDNN takes minutes to make such a kernel in bfloat16."""
    image = torch.rand(1, 3, 40, 40).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        blurred = gaussian_blur(image, 4.0)
    torch.testing.assert_close(blurred, gaussian_blur(image, 4.0), rtol=0, atol=0)


# --- reflection padding --------------------------------------------------------------------------


@pytest.mark.parametrize("pads", PADS)
@pytest.mark.parametrize("size", [(5, 7), (16, 17), (2, 3), (1, 4), (3, 1), (1, 1)])
def test_reflection_pad_equals_numpys_for_every_size_and_pad(size: tuple[int, int], pads: tuple[int, ...]) -> None:
    left, right, top, bottom = pads
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = np.pad(image.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="reflect")
    assert np.array_equal(reflection_pad(image, left, right, top, bottom).numpy(), expected)


def test_reflection_does_not_repeat_the_border_pixel() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert reflection_pad(row, 2, 1, 0, 0).flatten().tolist() == [3, 2, 1, 2, 3, 2]
    assert reflection_pad(row, 0, 6, 0, 0).flatten().tolist() == [1, 2, 3, 2, 1, 2, 3, 2, 1]


def test_reflection_pad_keeps_the_memory_format_and_type() -> None:
    image = torch.randn(2, 3, 8, 9).to(torch.bfloat16)
    last = image.contiguous(memory_format=torch.channels_last)
    padded = reflection_pad(last, 1, 2, 3, 20)
    assert padded.is_contiguous(memory_format=torch.channels_last)
    assert padded.dtype == torch.bfloat16
    assert reflection_pad(image, 1, 2, 3, 20).is_contiguous()
    assert torch.equal(padded, reflection_pad(image, 1, 2, 3, 20))


def test_reflection_pad_has_the_right_gradient_even_when_it_folds() -> None:
    image = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: reflection_pad(x, 2, 7, 5, 1), image)


@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (2, 3, 0, 4), (0, 0, 0, 0), (3, 0, 4, 4)])
def test_the_gradient_of_a_gpu_is_that_of_torch(pads: tuple[int, int, int, int]) -> None:
    image = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 5 + pads[2] + pads[3], 6 + pads[0] + pads[1], dtype=torch.float64)
    found, expected = (
        torch.autograd.grad((weights * pad).sum(), image)[0]
        for pad in (_Reflected.apply(image, *pads), F.pad(image, pads, mode="reflect"))
    )
    assert torch.allclose(found, expected)
    assert torch.equal(_Reflected.apply(image, *pads), reflection_pad(image, *pads))


# --- instance norm -------------------------------------------------------------------------------


def norm_of(channels: int) -> InstanceNorm:
    norm = InstanceNorm(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, channels))
        norm.bias.copy_(torch.linspace(3, -1, channels))
    return norm


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_instance_norm_equals_torchs(dtype: torch.dtype, tolerance: float) -> None:
    norm = norm_of(4).to(dtype)
    x = torch.randn(3, 4, 6, 5, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 5 + 2
    expected = F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=1e-5)
    assert norm(x).dtype == dtype
    assert torch.allclose(norm(x), expected, rtol=tolerance, atol=tolerance)


def test_instance_norm_by_hand() -> None:
    norm = InstanceNorm(1, eps=0)
    with torch.no_grad():
        norm.weight.fill_(3)
        norm.bias.fill_(10)
    x = torch.tensor([[[[1.0, 1.0], [5.0, 5.0]]]])  # mean 3, variance 4
    assert norm(x).flatten().tolist() == pytest.approx([7, 7, 13, 13])


def test_instance_norm_is_the_same_in_training_and_at_inference() -> None:
    norm = norm_of(4)
    x = torch.randn(2, 4, 6, 5)
    first = norm.train()(x)
    for _ in range(3):
        norm(torch.randn(2, 4, 6, 5) * 100)
    assert torch.equal(norm.eval()(x), first)
    assert set(norm.state_dict()) == {"weight", "bias"}


def test_instance_norm_treats_every_picture_by_itself() -> None:
    norm = norm_of(4)
    x = torch.randn(3, 4, 6, 5)
    alone = torch.cat([norm(x[i : i + 1]) for i in range(3)])
    assert torch.allclose(norm(x), alone, atol=1e-6)
    assert torch.allclose(norm(torch.cat([x[:1], x[1:] * 1000]))[:1], norm(x)[:1], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_instance_norm_takes_its_moments_in_float32(dtype: torch.dtype) -> None:
    # The mean of 5 and 5.0625 is no bfloat16, and the sum of 32,768 of them no float16.
    x = torch.full((1, 1, 128, 256), 5.0)
    x[:, :, ::2] = 5.0625
    out = InstanceNorm(1)(x.to(dtype))
    assert out.dtype == dtype
    # ± 0.03125 / sqrt(0.03125² + 1e-5) = ± 0.99492
    assert out[0, 0, 0, 0].item() == pytest.approx(0.99492, abs=4e-3)
    assert out[0, 0, 1, 0].item() == pytest.approx(-0.99492, abs=4e-3)


def test_instance_norm_has_the_right_gradient() -> None:
    norm = norm_of(2).double()
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, x)


def test_norms_by_name() -> None:
    assert isinstance(make_norm("instance", 3), InstanceNorm)
    assert isinstance(make_norm("batch", 3), nn.BatchNorm2d)
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(make_norm("none", 3)(x), x)
    with pytest.raises(ValueError, match=r"'group'; expected one of instance, batch, none"):
        make_norm("group", 3)  # type: ignore[arg-type]


# --- convolutions --------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize("kernel", [3, 9])
def test_padded_convolutions_keep_the_size_or_halve_it_upwards(padding: str, kernel: int) -> None:
    x = torch.randn(1, 2, 17, 20)
    assert Conv(2, 5, kernel, 1, padding)(x).shape == (1, 5, 17, 20)  # type: ignore[arg-type]
    assert Conv(2, 5, kernel, 2, padding)(x).shape == (1, 5, 9, 10)  # type: ignore[arg-type]


def test_an_unpadded_convolution_takes_its_border() -> None:
    assert Conv(2, 5, 3, padding="none")(torch.randn(1, 2, 17, 20)).shape == (1, 5, 15, 18)


def test_padding_shows_at_the_border() -> None:
    x = torch.ones(1, 1, 5, 5)
    sums = {}
    for padding in ("reflect", "zeros"):
        conv = Conv(1, 1, 3, padding=padding)  # type: ignore[arg-type]
        nn.init.ones_(conv.conv.weight)
        nn.init.zeros_(conv.conv.bias)  # type: ignore[arg-type]
        sums[padding] = conv(x)[0, 0]
    assert (sums["reflect"] == 9).all()
    assert (sums["zeros"][0, 0], sums["zeros"][0, 2], sums["zeros"][2, 2]) == (4, 6, 9)


def test_an_unknown_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="'same'; expected one of reflect, zeros, none"):
        Conv(1, 1, 3, padding="same")  # type: ignore[arg-type]


def test_a_convolution_block_ends_in_a_relu() -> None:
    block = ConvBlock(1, 2, 3, norm="none", padding="reflect")
    zero(block)
    with torch.no_grad():
        block.conv.conv.bias.copy_(torch.tensor([-1.0, 2.0]))  # type: ignore[union-attr]
    assert block(torch.randn(1, 1, 4, 4)).mean(dim=(2, 3)).tolist() == [[0, 2]]


# --- residual blocks -----------------------------------------------------------------------------


def residual(padding: str, bias: float) -> ResidualBlock:
    """A residual block whose change is ``bias`` everywhere."""
    block = ResidualBlock(2, norm="none", padding=padding)  # type: ignore[arg-type]
    zero(block)
    with torch.no_grad():
        block.conv.conv.bias.fill_(bias)  # type: ignore[union-attr]
    return block


def test_a_residual_block_has_no_relu_after_the_sum() -> None:
    x = torch.randn(1, 2, 6, 7)
    out = residual("reflect", -5.0)(x)
    assert torch.allclose(out, x - 5)
    assert (out < 0).any()


def test_a_residual_block_has_a_relu_between_its_convolutions() -> None:
    block = residual("reflect", 0.0)
    with torch.no_grad():
        block.first.conv.conv.bias.fill_(-3.0)  # type: ignore[union-attr]
        block.conv.conv.weight.fill_(1.0)
    x = torch.randn(1, 2, 6, 7)
    assert torch.equal(block(x), x)


def test_an_unpadded_residual_block_crops_its_skip_connection_at_the_centre() -> None:
    x = torch.arange(2 * 9 * 8.0).reshape(1, 2, 9, 8)
    assert torch.equal(residual("none", 0.5)(x), x[:, :, 2:7, 2:6] + 0.5)


def test_an_unpadded_residual_block_is_the_padded_one_away_from_the_border() -> None:
    torch.manual_seed(0)
    padded = ResidualBlock(3, norm="none", padding="reflect")
    bare = ResidualBlock(3, norm="none", padding="none")
    bare.load_state_dict(padded.state_dict())
    x = torch.randn(1, 3, 12, 11)
    assert torch.allclose(bare(x), padded(x)[:, :, 2:-2, 2:-2], atol=1e-6)


# --- upsampling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest", "transposed"])
@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize("size", [(4, 4), (7, 9), (1, 5)])
def test_an_up_block_doubles_the_size(upsampling: str, padding: str, size: tuple[int, int]) -> None:
    block = UpBlock(3, 2, upsampling=upsampling, norm="instance", padding=padding)  # type: ignore[arg-type]
    assert block(torch.randn(2, 3, *size)).shape == (2, 2, 2 * size[0], 2 * size[1])


def test_nearest_upsampling_repeats_each_pixel_before_the_convolution() -> None:
    block = UpBlock(1, 1, upsampling="nearest", norm="none", padding="reflect")
    zero(block)
    with torch.no_grad():
        block.conv.conv.weight[0, 0, 1, 1] = 1  # type: ignore[union-attr,index]
    x: Tensor = torch.tensor([[[[1.0, 2.0], [-3.0, 4.0]]]])
    assert block(x)[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 4, 4], [0, 0, 4, 4]]


def test_transposed_upsampling_is_a_convolution_of_stride_one_half() -> None:
    block = UpBlock(1, 1, upsampling="transposed", norm="none", padding="reflect")
    zero(block)
    with torch.no_grad():
        block.conv.weight[0, 0, 1, 1] = 1  # type: ignore[union-attr,index]
    # Zeros between the pixels, and the kernel's centre on them.
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert block(x)[0, 0].tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]


def test_bilinear_upsampling_interpolates_before_the_convolution() -> None:
    block = UpBlock(1, 1, upsampling="bilinear", norm="none", padding="reflect")
    zero(block)
    with torch.no_grad():
        block.conv.conv.weight[0, 0, 1, 1] = 1  # type: ignore[union-attr,index]
    x = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    assert block(x)[0, 0].tolist() == [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]


def test_an_unknown_upsampling_is_refused() -> None:
    with pytest.raises(ValueError, match="'bicubic'; expected bilinear, nearest or transposed"):
        UpBlock(1, 1, upsampling="bicubic", norm="none", padding="reflect")
