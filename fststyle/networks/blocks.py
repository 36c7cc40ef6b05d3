"""Building blocks of the feed-forward networks: padding, norms, convolutions, residual blocks."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["instance", "batch", "none"]
Padding = Literal["reflect", "zeros", "none"]


def reflection_pad(image: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad by reflection about the border pixels, which are not repeated.

    A pad of the picture's size or more folds back and forth, as ``numpy.pad(mode="reflect")`` does;
    ``torch.nn.functional.pad`` refuses it. Concatenating slices keeps the memory format, where
    torch's own reflection pad converts channels-last to contiguous and back.

    Args:
        image: (B, C, H, W), any dtype.
        left, right, top, bottom: pixels to add, ≥ 0.

    Returns:
        (B, C, top + H + bottom, left + W + right).
    """
    height, width = image.shape[-2:]
    # One operation, which runtimes know and compilers fuse; for pads below the size only.
    if torch.compiler.is_exporting() or (
        torch.compiler.is_compiling() and max(top, bottom) < height and max(left, right) < width
    ):
        return F.pad(image, (left, right, top, bottom), mode="reflect")
    return _reflect(_reflect(image, top, bottom, dim=2), left, right, dim=3)


def fill_up(image: Tensor, multiple: int, border: int = 0) -> Tensor:
    """Pad by reflection: ``border`` on every side, and right and bottom up to a multiple of ``multiple`` pixels.

    Args:
        image: (B, C, H, W).

    Returns:
        (B, C, H' + 2 · border, W' + 2 · border) with H', W' the multiples.
    """
    b, (height, width) = border, image.shape[-2:]
    if torch.compiler.is_exporting():  # runtimes want pads that do not depend on the size: too far, then cut
        padded = reflection_pad(image, b, b + multiple - 1, b, b + multiple - 1)
        bottom, right = (2 * b + (side + multiple - 1) // multiple * multiple for side in (height, width))
        return cut(padded, bottom, right)
    return reflection_pad(image, b, b + -width % multiple, b, b + -height % multiple)


def cut(image: Tensor, height: int, width: int) -> Tensor:
    """The upper left part of an image (B, C, H, W)."""
    if torch.compiler.is_exporting():  # a slice would tie the graph to sizes at which it is as contiguous as now
        rows, columns = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
        return image.index_select(2, rows).index_select(3, columns)
    return image[:, :, :height, :width]


def _reflect(x: Tensor, before: int, after: int, dim: int) -> Tensor:
    while before or after:
        size = x.shape[dim]
        if size == 1:  # one pixel has nothing to fold about: numpy repeats it
            parts = [x] * (before + 1 + after)
            before = after = 0
        else:
            a, b = min(before, size - 1), min(after, size - 1)
            head = [x.narrow(dim, 1, a).flip(dim)] if a else []
            tail = [x.narrow(dim, size - 1 - b, b).flip(dim)] if b else []
            parts = [*head, x, *tail]
            before, after = before - a, after - b
        x = torch.cat(parts, dim)
    return x


class InstanceNorm(nn.Module):
    """Instance normalisation (Ulyanov, Vedaldi, Lempitsky 2016) with scale and shift.

    Each channel of each picture is brought to mean 0 and variance 1 by its own moments, in training
    and at inference alike: there are no running statistics. Moments are taken in float32 or better.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # in the form that runtimes know as one operation
            centred = x - x.mean((2, 3), keepdim=True)
            deviation = torch.sqrt(centred.square().mean((2, 3), keepdim=True) + self.eps)
            return centred / deviation * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        precise = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        variance, mean = torch.var_mean(precise, dim=(2, 3), correction=0, keepdim=True)
        scale, shift = self.affine(mean, variance)
        return (precise * scale + shift).to(x.dtype)

    def affine(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift that moments (B, C, 1, 1) come to; all in the moments' type."""
        scale = self.weight.view(1, -1, 1, 1).to(mean.dtype) * torch.rsqrt(variance + self.eps)
        return scale, self.bias.view(1, -1, 1, 1).to(mean.dtype) - mean * scale


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """The norm named ``norm`` for ``channels`` channels."""
    kinds: dict[str, type[nn.Module]] = {"instance": InstanceNorm, "batch": nn.BatchNorm2d}
    if norm == "none":
        return nn.Identity()
    if norm not in kinds:
        raise ValueError(f"norm is {norm!r}; expected one of instance, batch, none")
    return kinds[norm](channels)


class Conv(nn.Module):
    """Convolution with its padding in front: ``reflect``, ``zeros`` or ``none`` (unpadded).

    Padded, stride 1 keeps the size and stride 2 gives ceil(size / 2).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: Padding = "reflect") -> None:
        super().__init__()
        if padding not in ("reflect", "zeros", "none"):
            raise ValueError(f"padding is {padding!r}; expected one of reflect, zeros, none")
        self.reflect = kernel // 2 if padding == "reflect" else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2 if padding == "zeros" else 0)

    def forward(self, x: Tensor) -> Tensor:
        p = self.reflect
        return self.conv(reflection_pad(x, p, p, p, p) if p else x)


class ConvBlock(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, norm: Norm, padding: Padding
    ) -> None:
        super().__init__()
        self.conv = Conv(inputs, outputs, kernel, stride, padding)
        self.norm = make_norm(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a skip connection, no ReLU after the sum (Gross & Wilber 2016).

    With ``padding="none"`` the result is 4 pixels smaller each way and the skip connection is
    cropped at its centre to match, as in Johnson et al.'s supplementary material.
    """

    def __init__(self, channels: int, *, norm: Norm, padding: Padding) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 3, norm=norm, padding=padding)
        self.conv = Conv(channels, channels, 3, padding=padding)
        self.norm = make_norm(norm, channels)
        self.crop = 2 if padding == "none" else 0

    def forward(self, x: Tensor) -> Tensor:
        change = self.norm(self.conv(self.first(x)))
        if self.crop:
            x = x[:, :, self.crop : -self.crop, self.crop : -self.crop]
        return x + change


class UpBlock(nn.Module):
    """Double the size, then norm and ReLU.

    ``bilinear``, ``nearest``: upsampling of that kind and a 3×3 convolution, which spreads every input evenly (Odena,
    Dumoulin, Olah 2016); after nearest-neighbour upsampling, small networks leave blocks of 2 × 2 and 4 × 4 pixels.
    ``transposed``: the paper's convolution of stride ½, whose kernel covers output pixels unevenly and tends to
    checkerboards.
    """

    def __init__(self, inputs: int, outputs: int, *, upsampling: str, norm: Norm, padding: Padding) -> None:
        super().__init__()
        self.upsampling = upsampling
        if upsampling in ("bilinear", "nearest"):
            self.conv: nn.Module = Conv(inputs, outputs, 3, padding=padding)
        elif upsampling == "transposed":
            self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        else:
            raise ValueError(f"upsampling is {upsampling!r}; expected bilinear, nearest or transposed")
        self.norm = make_norm(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.upsampling != "transposed":
            x = F.interpolate(x, scale_factor=2.0, mode=self.upsampling)
        return F.relu(self.norm(self.conv(x)))


def gaussian_blur(image: Tensor, deviation: float) -> Tensor:
    """An image (B, C, H, W) under a Gaussian of ``deviation`` pixels, cut off at four of them, borders reflected."""
    reach = math.ceil(4 * deviation)
    offsets = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(image.shape[1], 1, 1, -1)
    padded = reflection_pad(image, reach, reach, reach, reach)
    rows = F.conv2d(padded, kernel, groups=image.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=image.shape[1])
