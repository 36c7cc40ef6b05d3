"""SuperResNet: enlarging by 4 or 8 (Johnson, Alahi, Fei-Fei 2016, § 3.1 and 4.2), and the reduction that it undoes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.networks.blocks import Conv, ConvBlock, ImageNetwork, Norm, Padding, ResidualBlock, UpBlock, gaussian_blur


class SuperResNet(ImageNetwork):
    """A small image (B, 3, H, W) in [0, 1] in, the same image 4 or 8 times as large out, in one pass.

    ``c9s1-64, R64 × 4, u64 × log2(scale), c9s1-3`` (paper, supplementary Table 2). The defaults are the
    recommended variant: it adds detail to a bicubic enlargement, and has no norm, which would take away
    the picture's own contrast; so what it makes of a place depends on the surroundings of that place alone.
    The paper's own choices are ``norm="batch", padding="zeros", upsampling="transposed", output="tanh",
    skip=False``.

    Args:
        scale: 4 or 8 (any power of 2).
        width: channels of every layer. 64 with a norm gives the paper's 401,859 parameters for ×4, and
            438,915 for ×8.
        residual_blocks: number of residual blocks, at the small size.
        norm, padding, upsampling: as in ``TransformNet``.
        output: ``linear``, or ``tanh``: the paper's 150 · tanh around ImageNet's mean, in units of 1/255.
        skip: add the result to a bicubic enlargement; the untrained network then gives just that.
    """

    def __init__(
        self,
        scale: int = 4,
        width: int = 64,
        residual_blocks: int = 4,
        norm: Norm = "none",
        padding: Padding = "reflect",
        upsampling: str = "nearest",
        output: str = "linear",
        skip: bool = True,
    ) -> None:
        super().__init__(output, scale=scale, skip=skip)
        self.config = {
            "scale": scale,
            "width": width,
            "residual_blocks": residual_blocks,
            "norm": norm,
            "padding": padding,
            "upsampling": upsampling,
            "output": output,
            "skip": skip,
        }
        if scale < 2 or scale & (scale - 1):
            raise ValueError(f"scale is {scale}; expected 2, 4, 8 or another power of 2")
        if width < 1 or residual_blocks < 0:
            raise ValueError(f"width is {width}, residual_blocks {residual_blocks}; expected ≥ 1 and ≥ 0")
        if padding not in ("reflect", "zeros"):
            raise ValueError(f"padding is {padding!r}; expected reflect or zeros")
        if output not in ("linear", "tanh"):
            raise ValueError(f"output is {output!r}; expected linear or tanh")
        if skip and output == "tanh":
            raise ValueError("skip=True adds to a whole picture; it goes with output=linear; found output='tanh'")
        self.encode = ConvBlock(3, width, 9, norm=norm, padding=padding)
        self.transform = nn.Sequential(
            *[ResidualBlock(width, norm=norm, padding=padding) for _ in range(residual_blocks)]
        )
        self.decode = nn.Sequential(
            *[
                UpBlock(width, width, upsampling=upsampling, norm=norm, padding=padding)
                for _ in range(scale.bit_length() - 1)
            ],
            Conv(width, 3, 9, padding=padding),
        )
        if skip:
            last: Conv = self.decode[-1]  # type: ignore[assignment]
            nn.init.zeros_(last.conv.weight)
            nn.init.zeros_(last.conv.bias)  # type: ignore[arg-type]

    def stages(self) -> tuple[nn.Module, ...]:
        """From the picture to features, residual blocks at its size, and up to the result's size."""
        return self.encode, self.transform, self.decode


def reduce(image: Tensor, scale: int, blur: float = 0.0) -> Tensor:
    """The small picture of which a large one is to be made again: Gaussian blur, then bicubic reduction.

    Bicubic as Pillow and MATLAB mean it: the kernel (a = -1/2) is as wide as a pixel of the result.

    Args:
        image: (B, 3, H, W) in [0, 1], H and W multiples of ``scale``.
        scale: how many times smaller.
        blur: standard deviation of the blur in pixels of ``image``; the paper's is 1, published
            measurements on benchmark sets take none.

    Returns:
        (B, 3, H / scale, W / scale) in [0, 1].

    Raises:
        ValueError: a size that ``scale`` does not divide, a negative blur.
    """
    height, width = image.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"the picture is {width}×{height} pixels; expected multiples of {scale}")
    if not 0 <= blur < math.inf:
        raise ValueError(f"blur is {blur}; expected a number ≥ 0")
    with torch.autocast(image.device.type, enabled=False):
        image = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
        if blur:
            image = gaussian_blur(image, blur)
        small = F.interpolate(image, (height // scale, width // scale), mode="bicubic", antialias=True)
    return small.clamp(0, 1)
