"""TransformNet: the feed-forward image transformation network of Johnson, Alahi, Fei-Fei (2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fststyle.images import check_size
from fststyle.networks.blocks import Conv, ConvBlock, Norm, Padding, ResidualBlock, UpBlock
from fststyle.padding import cut, fill_up

# Mean of ImageNet's RGB values, from which the Caffe VGG networks and Johnson's code subtract.
IMAGENET_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)


class TransformNet(nn.Module):
    """Image in, stylised image out, at the same size, in one pass.

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
        output: ``sigmoid`` gives [0, 1]; ``tanh`` gives the paper's 150 · tanh around ImageNet's
            mean, in units of 1/255, so [-0.18, 1.07]; ``linear`` has no bound. What leaves [0, 1]
            is clamped when the picture is shown, not here, where training needs its gradient.
    """

    mean: Tensor

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
        super().__init__()
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
        if output not in ("sigmoid", "tanh", "linear"):
            raise ValueError(f"output is {output!r}; expected one of sigmoid, tanh, linear")
        self.border = border
        self.output = output
        block: Padding = "none" if border else padding
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
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

    def forward(self, image: Tensor) -> Tensor:
        """Stylise.

        Args:
            image: (B, 3, H, W), RGB in [0, 1], H and W ≥ 16.

        Returns:
            (B, 3, H, W), in the range that ``output`` names.

        Raises:
            ValueError: for another shape or a smaller picture.
        """
        check_size(image)
        height, width = image.shape[-2:]
        # Two strides of 2: sides that 4 does not divide are filled up by reflection and cropped after.
        x = fill_up(image - self.mean, 4, self.border)
        return self.finished(cut(self.decode(self.transform(self.encode(x))), height, width))

    def finished(self, x: Tensor) -> Tensor:
        """What the last convolution gives, as a picture in the range that ``output`` names."""
        if self.output == "sigmoid":
            return torch.sigmoid(x)
        if self.output == "tanh":
            return torch.tanh(x) * (150 / 255) + self.mean
        return x + self.mean
