"""Several styles in one picture, each in its region: networks that share their convolutions, under masks.

Scale and shift of an instance norm vary over the picture (Dumoulin, Shlens, Kudlur 2017, § 3.3, mix them over the
whole): what is normalised is scaled by Σ_k m_k(x, y) · scale_k and shifted by Σ_k m_k(x, y) · shift_k, where m_k is the
share that style k has of a place. There is one pass and no second picture, so that strokes go on across an edge.
Moments are those of the whole picture.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fststyle.networks.blocks import ColorTransform, Conv, InstanceNorm, KuwaharaFilter, TransposedConv
from fststyle.networks.transform import TransformNet, in_common
from fststyle.padding import pad_to_multiple
from fststyle.tensor_files import is_style_parameter

#: Rows whose scales and shifts are in memory at once.
_BAND = 32


class Masks(nn.Module):
    """What share of a picture's places each of K regions has; shared by the norms of a network.

    Args:
        masks: (1, K - 1, H, W), of the picture's size: the shares of all regions but the first, which has the rest.
            Floating point in [0, 1], or uint8 in units of 1/255. They sum to 1 at most.
        multiple, border: the picture is padded by, as ``padding.pad_to_multiple`` does.
    """

    masks: Tensor

    def __init__(self, masks: Tensor, multiple: int, border: int) -> None:
        super().__init__()
        self.register_buffer("masks", pad_to_multiple(masks, multiple, border), persistent=False)

    def shares(self, top: int, bottom: int, stride: int, inset: int, dtype: torch.dtype) -> Tensor:
        """Rows of the shares (1, K, bottom - top, w) at a feature map's size, means over squares of its pixels.

        Args:
            top, bottom: rows of the feature map, from one to before another.
            stride: pixels of the picture to one of the feature map.
            inset: pixels of the picture that unpadded convolutions have taken away on each side.
        """
        rows = slice(inset + top * stride, inset + bottom * stride)
        part = self.masks[:, :, rows, inset : self.masks.shape[3] - inset]
        part = part.to(dtype) / 255 if part.dtype == torch.uint8 else part.to(dtype)
        part = F.avg_pool2d(part, stride)
        return torch.cat([1 - part.sum(1, keepdim=True), part], 1)


class RegionNorm(InstanceNorm):
    """An instance norm whose scale and shift, (K, 1, C), vary over the picture with masks.

    Args:
        norms: those of the regions, of as many channels.
        masks: of the whole picture.
        stride, inset: where in it the feature map lies; see ``Masks.shares``.
    """

    def __init__(self, norms: Sequence[InstanceNorm], masks: Masks, stride: int, inset: int) -> None:
        super().__init__(norms[0].weight.shape[-1], norms[0].eps)
        self.weight = nn.Parameter(torch.stack([norm.weight.detach() for norm in norms])[:, None])
        self.bias = nn.Parameter(torch.stack([norm.bias.detach() for norm in norms])[:, None])
        self.masks, self.stride, self.inset = masks, stride, inset

    def forward(self, x: Tensor) -> Tensor:
        if tuple(side * self.stride + 2 * self.inset for side in x.shape[2:]) != self.masks.masks.shape[2:]:
            raise ValueError("found a picture of another size than the masks of its regions; expected theirs")
        return super().forward(x)

    def normed(self, x: Tensor, mean: Tensor, variance: Tensor, top: int = 0) -> Tensor:
        affine = [value.to(x.dtype).permute(0, 1, 3, 4, 2) for value in self.affine(mean, variance)]  # (K, B, 1, 1, C)
        bands = []
        for first in range(0, x.shape[2], _BAND):
            band = x[:, :, first : first + _BAND]
            rows = (top + first, top + first + band.shape[2])
            shares = self.masks.shares(*rows, self.stride, self.inset, x.dtype)
            columns = shares.permute(1, 0, 2, 3)[..., None]  # (K, 1, rows, W, 1)
            scale, shift = ((value * columns).sum(0).permute(0, 3, 1, 2) for value in affine)
            bands.append(band * scale + shift)
        return torch.cat(bands, 2)


class RegionColors(nn.Module):
    """The colour transforms of the regions, each as far as its mask says.

    Args:
        transforms: those of the regions.
        masks: of the whole picture.
    """

    def __init__(self, transforms: Sequence[ColorTransform], masks: Masks) -> None:
        super().__init__()
        self.transforms, self.masks = nn.ModuleList(copy.deepcopy(each) for each in transforms), masks

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x, 0)

    def rows(self, x: Tensor, top: int) -> Tensor:
        """What is made of the rows of the last feature map (B, 3, rows, W) from row ``top`` on."""
        shares = self.masks.shares(top, top + x.shape[2], 1, 0, self.transforms[0].weight.dtype)  # type: ignore[arg-type]
        parts = [share[:, None] * each(x) for share, each in zip(shares.unbind(1), self.transforms, strict=True)]
        return torch.stack(parts).sum(0)


class RegionFilter(KuwaharaFilter):
    """A filter of which each region has as much as its style.

    Args:
        radius: of the filter, pixels.
        smoothed: its shares in the regions.
        masks: of the whole picture.
    """

    def __init__(self, radius: float, smoothed: Sequence[float], masks: Masks) -> None:
        super().__init__(radius, smoothed)
        self.masks = masks

    def shares(self, x: Tensor, top: int) -> Tensor:
        places = self.masks.shares(top, top + x.shape[2], 1, 0, x.dtype)[..., : x.shape[3]]
        return (places * self.share.to(x.dtype)[None, ..., None]).sum(1, keepdim=True)


def share_convolutions(networks: Sequence[TransformNet]) -> bool:
    """Whether networks for one style each differ in what a style has of its own alone."""
    first, *others = networks
    if not isinstance(first, TransformNet) or first.config["norm"] != "instance" or first.styles != 1:
        return False
    weights = first.state_dict()
    return all(
        isinstance(other, TransformNet)
        and (other.shape, other.styles) == (first.shape, 1)
        and all(is_style_parameter(k) or torch.equal(value, weights[k]) for k, value in other.state_dict().items())
        for other in others
    )


def with_regions(networks: Sequence[TransformNet], masks: Tensor) -> TransformNet:
    """A network for pictures of one size, of whose regions each has the style of another network.

    Args:
        networks: K of them, for one style each, that ``share_convolutions``, such as ``TransformNet.of_mixture`` gives.
        masks: (1, K - 1, H, W), the shares of the second and all further ones; see ``Masks``.

    Returns:
        It shares no memory with the networks. Where one style has all, it gives that network's result exactly.

    Raises:
        ValueError: convolutions or filters that differ; masks of another shape.
    """
    if masks.dim() != 4 or masks.shape[:2] != (1, len(networks) - 1):
        raise ValueError(f"found masks of shape {tuple(masks.shape)}; expected (1, {len(networks) - 1}, H, W)")
    if not share_convolutions(networks):
        raise ValueError("found networks of different convolutions; expected styles of one network")
    networks, arguments = in_common(networks)
    result = copy.deepcopy(networks[0])
    shared = Masks(masks.to(result.mean.device), result.multiple, result.border)
    stride, inset = 1, 0
    for name, module in networks[0].named_modules():  # in the order in which they are applied
        if isinstance(module, Conv):
            padded = module.reflect or int(module.conv.padding[0])
            inset += 0 if padded else stride * (int(module.conv.kernel_size[0]) // 2)
            stride *= int(module.conv.stride[0])
        elif isinstance(module, (nn.Upsample, TransposedConv)):
            stride //= 2
        elif isinstance(module, InstanceNorm):
            norms: list[InstanceNorm] = [network.get_submodule(name) for network in networks]  # type: ignore[misc]
            result.set_submodule(name, RegionNorm(norms, shared, stride, inset))
        elif isinstance(module, ColorTransform):
            result.set_submodule(name, RegionColors([network.get_submodule(name) for network in networks], shared))  # type: ignore[misc]
    if "kuwahara" in arguments:
        result.finish = RegionFilter(arguments["kuwahara"], arguments["smoothed"], shared)
    return result.eval()
