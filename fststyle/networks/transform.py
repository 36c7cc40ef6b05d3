"""TransformNet: the feed-forward image transformation network of Johnson, Alahi, Fei-Fei (2016)."""

from __future__ import annotations

from torch import nn

from fststyle.networks.blocks import Conv, ConvBlock, Norm, Padding, ResidualBlock, UpBlock
from fststyle.networks.image_network import ImageNetwork


class TransformNet(ImageNetwork):
    """Image (B, 3, H, W) in [0, 1] in, stylised image out, at the same size, in one pass.

    ``c9s1-32, d64, d128, R128 × 5, u64, u32, c9s1-3`` with a norm and ReLU after every convolution
    outside the residual blocks but the last (paper, supplementary Table 1). The defaults are what
    users of the published implementations report as best; the paper's own choices are
    ``norm="batch", padding="zeros", upsampling="transposed", border=40, output="tanh"``.

    Args:
        width: channels of the first layer; the others follow as 2 and 4 times as many. 32 gives
            1,679,235 parameters, 16 gives 424,899.
        residual_blocks: number of residual blocks.
        norm: ``instance``, ``batch`` or ``none``.
        padding: of the convolutions, ``reflect`` or ``zeros``.
        upsampling: ``bilinear``, ``nearest`` (upsampling and convolution) or ``transposed``; see ``UpBlock``.
        border: reflection padding of the picture in pixels, for residual blocks without padding
            that eat it up again; 8 · residual_blocks (the paper's 40), or 0 for padded blocks.
        output: ``sigmoid``, ``tanh`` or ``linear``; see ``ImageNetwork``.
    """

    def __init__(
        self,
        width: int = 32,
        residual_blocks: int = 5,
        norm: Norm = "instance",
        padding: Padding = "reflect",
        upsampling: str = "bilinear",
        border: int = 0,
        output: str = "sigmoid",
    ) -> None:
        super().__init__(output, multiple=4, border=border)  # two strides of 2
        self.config = {
            "width": width,
            "residual_blocks": residual_blocks,
            "norm": norm,
            "padding": padding,
            "upsampling": upsampling,
            "border": border,
            "output": output,
        }
        if width < 1 or residual_blocks < 0:
            raise ValueError(f"width is {width}, residual_blocks {residual_blocks}; expected ≥ 1 and ≥ 0")
        if border not in (0, 8 * residual_blocks):
            raise ValueError(
                f"border is {border}; expected 0 (padded residual blocks) or {8 * residual_blocks} "
                f"(what {residual_blocks} unpadded residual blocks take away)"
            )
        if padding not in ("reflect", "zeros"):
            raise ValueError(f"padding is {padding!r}; expected reflect or zeros")
        block: Padding = "none" if border else padding
        self.encode = nn.Sequential(
            ConvBlock(3, width, 9, norm=norm, padding=padding),
            ConvBlock(width, 2 * width, 3, 2, norm=norm, padding=padding),
            ConvBlock(2 * width, 4 * width, 3, 2, norm=norm, padding=padding),
        )
        self.transform = nn.Sequential(
            *[ResidualBlock(4 * width, norm=norm, padding=block) for _ in range(residual_blocks)]
        )
        self.decode = nn.Sequential(
            UpBlock(4 * width, 2 * width, upsampling=upsampling, norm=norm, padding=padding),
            UpBlock(2 * width, width, upsampling=upsampling, norm=norm, padding=padding),
            Conv(width, 3, 9, padding=padding),
        )

    def stages(self) -> tuple[nn.Module, ...]:
        """From the picture to quarter resolution, residual blocks there, and up again."""
        return self.encode, self.transform, self.decode
