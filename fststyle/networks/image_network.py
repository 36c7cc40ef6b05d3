"""What the networks from image to image share: their input's and output's scaling, and how their blocks are applied."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.images import check_size
from fststyle.padding import crop, pad_to_multiple

# Mean of ImageNet's RGB values, from which the Caffe VGG networks and Johnson's code subtract.
IMAGENET_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)


class ImageNetwork(nn.Module):
    """A network from image to image that applies blocks one after the other.

    A subclass makes its blocks from ``networks.blocks``, returns them from ``stages`` in the order in which they are
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
        return self.to_range(x)

    def to_range(self, x: Tensor) -> Tensor:
        """What the last block gives (B, 3, H, W), without a skip connection, in the range that ``output`` names."""
        if self.output == "sigmoid":
            return torch.sigmoid(x)
        return (torch.tanh(x) * (150 / 255) if self.output == "tanh" else x) + self.mean
