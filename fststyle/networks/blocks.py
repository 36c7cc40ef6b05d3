"""Building blocks of the feed-forward networks (norms, convolutions, residual blocks), and what applies them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.images import check_size
from fststyle.images.arrays import YCBCR
from fststyle.kuwahara import DEVIATION, SECTORS, reach_of, sector_kernels
from fststyle.padding import crop, pad_to_multiple, reflection_pad

#: Mean of ImageNet's RGB values, from which the Caffe VGG networks and Johnson's code subtract.
IMAGENET_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)

Norm = Literal["instance", "batch", "none"]
Padding = Literal["reflect", "zeros", "none"]


class InstanceNorm(nn.Module):
    """Instance normalisation (Ulyanov, Vedaldi, Lempitsky 2016) with scale and shift.

    Each channel of each picture is brought to mean 0 and variance 1 by its own moments, in training
    and at inference alike: there are no running statistics. Moments are taken in float32 or better.

    Scale and shift are (C,). A network for N styles keeps (N, C) of them and gives each picture of a batch its own,
    (B, C), by ``functional_call`` (conditional instance normalisation: Dumoulin, Shlens, Kudlur 2017, eq. 5).
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
            weight, bias = (value.view(-1, x.shape[1], 1, 1) for value in (self.weight, self.bias))
            return centred / deviation * weight + bias
        precise = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        variance, mean = torch.var_mean(precise, dim=(2, 3), correction=0, keepdim=True)
        return self.normed(precise, mean, variance).to(x.dtype)

    def normed(self, x: Tensor, mean: Tensor, variance: Tensor, top: int = 0) -> Tensor:
        """Rows of a feature map, from row ``top`` on, by the moments (B, C, 1, 1) of the whole map."""
        scale, shift = self.affine(mean, variance)
        return x * scale.to(x.dtype) + shift.to(x.dtype)

    def affine(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift that moments (B, C, 1, 1) come to; all in the moments' type.

        Weight and bias are (C,) or (B, C).
        """
        scale = self.weight[..., None, None].to(mean.dtype) * torch.rsqrt(variance + self.eps)
        return scale, self.bias[..., None, None].to(mean.dtype) - mean * scale


class ColorTransform(nn.Module):
    """A style's own affine map of three channels: 9 weights, by rows, and 3 shifts; at first it changes nothing.

    Behind the last convolution, which styles share, it lets a style have a palette that the others lack: scales and
    shifts of the 32 channels before it choose among the colours that the convolution makes of them.

    Weight and bias are (9,) and (3,), or (N, 9) and (N, 3), as those of ``InstanceNorm``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3).flatten())
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        # As sums of products, which autocast leaves in float32.
        columns = self.weight.unflatten(-1, (3, 3)).unbind(-1)
        terms = [column[..., None, None] * x[:, [k]] for k, column in enumerate(columns)]
        return sum(terms, self.bias[..., None, None])


class KuwaharaFilter(nn.Module):
    """The generalised Kuwahara filter of ``fststyle.kuwahara`` on what a network gives; in training it does nothing.

    Args:
        radius: in pixels; see ``sector_kernels``.
        shares: of its result in each style's picture, in [0, 1]; the rest is the picture unfiltered.

    ``share`` is (1,), or (N, 1), as a norm's scale.
    """

    kernels: Tensor
    luma: Tensor
    share: Tensor

    def __init__(self, radius: float, shares: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"the filter's shares are {[*shares]}; expected numbers from 0 to 1")
        self.reach = reach_of(radius)
        share = torch.tensor(shares, dtype=torch.float32)
        # As mean, not persistent: the configuration has them.
        self.register_buffer("share", share[:, None] if len(shares) > 1 else share, persistent=False)
        self.register_buffer("kernels", torch.from_numpy(sector_kernels(radius)), persistent=False)
        self.register_buffer("luma", torch.from_numpy(YCBCR[0].copy()).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        r = self.reach
        return x if self.training else self.of_padded(reflection_pad(x, r, r, r, r))

    def of_padded(self, padded: Tensor, top: int = 0) -> Tensor:
        """Of rows of a picture from row ``top`` on, padded by ``reach`` on all sides, as in ``inference.strips``."""
        r = self.reach
        with torch.autocast(padded.device.type, enabled=False):  # squares take float32 or better
            precise = padded.float() if padded.dtype in (torch.float16, torch.bfloat16) else padded
            x = precise[:, :, r:-r, r:-r]
            return (x + self.shares(x, top) * (self._filtered(precise) - x)).to(padded.dtype)

    def shares(self, x: Tensor, top: int) -> Tensor:
        """Of the filter in the pixels of rows (B, 3, rows, W) from row ``top`` on."""
        return self.share.to(x.dtype).reshape(-1, 1, 1, 1)

    def _filtered(self, padded: Tensor) -> Tensor:
        """The mean of the sectors' mean colours, weighted by 1 / (1 + (deviation / DEVIATION)^3)."""
        luma = self.luma.to(padded.dtype)
        lightness = (padded * luma).sum(1, keepdim=True)
        maps = torch.cat([padded, lightness.square()], 1)
        count, channels, *sides = maps.shape
        means = F.conv2d(maps.reshape(count * channels, 1, *sides), self.kernels.to(padded.dtype))
        *colors, square = means.reshape(count, channels * SECTORS, *means.shape[2:]).chunk(channels, 1)
        level = sum(weight * color for weight, color in zip(luma.flatten(), colors, strict=True))
        weights = 1 / (1 + ((square - level.square()).clamp_min(0) / DEVIATION**2) ** 1.5)
        weights = weights / weights.sum(1, keepdim=True)
        return torch.cat([(weights * color).sum(1, keepdim=True) for color in colors], 1)


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


class ConvBlock(nn.Sequential):
    """Convolution, norm, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, norm: Norm, padding: Padding
    ) -> None:
        super().__init__()
        self.conv = Conv(inputs, outputs, kernel, stride, padding)
        self.norm = make_norm(norm, outputs)
        self.relu = nn.ReLU()


class ResidualBlock(nn.Sequential):
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
        change = super().forward(x)
        if self.crop:
            x = x[:, :, self.crop : -self.crop, self.crop : -self.crop]
        return x + change


class TransposedConv(nn.ConvTranspose2d):
    """Transposed convolution 3×3 of stride 2, zero padded, that doubles the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1, output_padding=1)


class UpBlock(nn.Sequential):
    """Double the size, then norm and ReLU.

    ``bilinear``, ``nearest``: upsampling of that kind and a 3×3 convolution, which spreads every input evenly (Odena,
    Dumoulin, Olah 2016); after nearest-neighbour upsampling, small networks leave blocks of 2 × 2 and 4 × 4 pixels.
    ``transposed``: the paper's convolution of stride ½, whose kernel covers output pixels unevenly and tends to
    checkerboards.
    """

    def __init__(self, inputs: int, outputs: int, *, upsampling: str, norm: Norm, padding: Padding) -> None:
        super().__init__()
        if upsampling in ("bilinear", "nearest"):
            self.upsample = nn.Upsample(scale_factor=2.0, mode=upsampling)
            self.conv: nn.Module = Conv(inputs, outputs, 3, padding=padding)
        elif upsampling == "transposed":
            self.conv = TransposedConv(inputs, outputs)
        else:
            raise ValueError(f"upsampling is {upsampling!r}; expected bilinear, nearest or transposed")
        self.norm = make_norm(norm, outputs)
        self.relu = nn.ReLU()


class ImageNetwork(nn.Module):
    """A network from image to image that applies blocks one after the other.

    A subclass makes its blocks from those of this module, returns them from ``stages`` in the order in which they are
    applied, and sets ``config``, the arguments of its constructor. ``forward`` and tiled inference
    (``inference.tiled``) evaluate the same stages, so a subclass needs no code of its own for either.

    Args:
        output: range of the result. ``sigmoid`` gives [0, 1]; ``tanh`` gives the paper's 150 · tanh around ImageNet's
            mean, in units of 1/255, so [-0.18, 1.07]; ``linear`` has no bound. What leaves [0, 1] is clamped when the
            picture is shown, not here, where training needs its gradient.
        scale: how many times larger than the input the result is, each way.
        multiple: height and width are padded by reflection to a multiple of this many pixels; the result is cropped.
            The product of the blocks' strides.
        border: reflection padding on every side in pixels, which unpadded blocks take away again.
        skip: add what the blocks give to the input, enlarged bicubically by ``scale``; goes with ``linear``.
    """

    mean: Tensor

    def __init__(
        self, output: str = "linear", *, scale: int = 1, multiple: int = 1, border: int = 0, skip: bool = False
    ) -> None:
        super().__init__()
        if output not in ("sigmoid", "tanh", "linear"):
            raise ValueError(f"output is {output!r}; expected one of sigmoid, tanh, linear")
        self.output, self.scale, self.multiple, self.border, self.skip = output, scale, multiple, border, skip
        #: Of what is in range; changes neither size nor range.
        self.finish: nn.Module = nn.Identity()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)

    def stages(self) -> Iterable[nn.Module]:
        """The blocks in the order in which they are applied: from 3 channels, mean subtracted, to 3 channels."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """Apply the network.

        Args:
            image: (B, 3, H, W), RGB in [0, 1], H and W ≥ 16.

        Returns:
            (B, 3, scale · H, scale · W), in the range that ``output`` names.

        Raises:
            ValueError: for another shape or a smaller picture.
        """
        check_size(image)
        x, padded = image - self.mean, self.multiple > 1 or self.border > 0
        if padded:
            x = pad_to_multiple(x, self.multiple, self.border)
        for stage in self.stages():
            x = stage(x)
        if padded:
            x = crop(x, self.scale * image.shape[2], self.scale * image.shape[3])
        if self.skip:
            return x + F.interpolate(image, scale_factor=float(self.scale), mode="bicubic")
        return self.finish(self.to_range(x))  # type: ignore[no-any-return]

    def to_range(self, x: Tensor) -> Tensor:
        """What the last block gives (B, 3, H, W), without a skip connection, in the range that ``output`` names."""
        if self.output == "sigmoid":
            return torch.sigmoid(x)
        return (torch.tanh(x) * (150 / 255) if self.output == "tanh" else x) + self.mean


def gaussian_blur(image: Tensor, deviation: float) -> Tensor:
    """An image (B, C, H, W) under a Gaussian of ``deviation`` pixels, cut off at four of them, borders reflected."""
    reach = math.ceil(4 * deviation)
    offsets = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(image.shape[1], 1, 1, -1)
    padded = reflection_pad(image, reach, reach, reach, reach)
    # In the image's precision: of channels-last images oneDNN takes minutes to make a bfloat16 kernel of this form.
    with torch.autocast(image.device.type, enabled=False):
        rows = F.conv2d(padded, kernel, groups=image.shape[1])
        return F.conv2d(rows, kernel.transpose(2, 3), groups=image.shape[1])
