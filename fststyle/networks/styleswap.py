"""Style swap (Chen & Schmidt 2016): every patch of the content's features replaced by the style's most similar one.

``swap`` is the exchange itself, ``InverseNet`` turns features into a picture again, ``StyleSwap`` is both
behind an encoder: any style, without training for it, in one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from fststyle.encoders.truncated import encoder_in, unfit
from fststyle.images import check_size
from fststyle.model_file import ModelFile
from fststyle.networks.blocks import Conv, ConvBlock, Norm, UpBlock
from fststyle.padding import crop, pad_to_multiple

if TYPE_CHECKING:
    from fststyle.encoders.vgg import VGGEncoder

#: Content patches that are compared at a time, each time with an eighth as many of the style. 4096 patches of 3×3
#: positions and 64 channels take 9 MB in float32, of 256 channels 38 MB; their similarities 8 MB.
BLOCK = 4096
#: A style patch of smaller norm than this is divided by this, so that zeros match nothing. The published code adds
#: as much to every norm, which would favour the longer of two parallel patches.
SMALLEST_NORM = 1e-8
#: What the nearer length is worth, in units of the similarity (from -1 to 1): far less than float32 features can
#: tell apart, so that it decides between parallel patches and nothing else.
NEARER_LENGTH = 1e-9
#: How far a matrix product may round its factors, by torch's setting: not at all, to TF32, to bfloat16.
_FACTORS_ROUNDED = {"highest": 0.0, "high": 2.0**-11, "medium": 2.0**-8}


def check_patch(patch: int, stride: int) -> None:
    """Raise ``ValueError`` unless patches of that size, so far apart, cover a feature map."""
    for name, value in (("patch", patch), ("stride", stride)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
    if stride > patch:
        raise ValueError(f"stride is {stride} and patch {patch}; expected a stride of at most the patch, without gaps")


@torch.no_grad()
def swap(
    content: Tensor,
    style: Tensor,
    patch: int = 3,
    stride: int = 1,
    block: int = BLOCK,
    visible: Tensor | None = None,
) -> Tensor:
    """Replace every patch of the content by the style's patch of the highest normalised cross-correlation.

    The paper's two convolutions: with the style's patches, divided by their norm, as filters, the content
    gives the similarities; with the patches as they are, the best of each place give the result, averaged where
    they overlap. Here the first is a matrix product over blocks of patches and the second a sum over a
    patch's positions, so that memory does not grow with the number of patches, let alone its square.

    The choice is that of float64, though nearly all is computed in float32: the products in float32 leave the
    patches that their rounding cannot tell from the best, and only those are compared in float64. Pictures need
    that: in even areas so many patches are nearly parallel that float32 alone gives one patch in a hundred of a
    photograph, swapped with itself, another for itself. Of patches that are parallel even in float64 the one
    nearest in length is taken, of equal ones the first; a content patch of zeros has no direction and gets the
    shortest. So a picture that is swapped with itself stays as it is.

    Args:
        content: features (B, C, H, W).
        style: features (B, C, H', W'), or (1, C, H', W') for all of the batch.
        patch: side of a patch, in feature positions.
        stride: positions from one patch to the next, in content and style alike, at most ``patch``; the last
            patch lies at the border whatever the stride.
        block: content patches that are compared at a time. It bounds memory and changes no result.
        visible: bool (h, w), what can be seen of the style, at any resolution: patches at whose middle less than half
            can are left out, unless those are all.

    Returns:
        (B, C, H, W) of the content's dtype, without graph. Half precision is computed in float32.

    Raises:
        ValueError: shapes that do not fit each other, a patch or stride below 1, a stride beyond the patch, or a
            patch larger than the features.
    """
    check_patch(patch, stride)
    if block < 1:
        raise ValueError(f"block is {block}; expected at least 1 patch at a time")
    if content.dim() != 4 or style.dim() != 4 or content.shape[1] != style.shape[1]:
        raise ValueError(
            f"found features of shapes {tuple(content.shape)} and {tuple(style.shape)}; expected (B, C, H, W) twice, "
            "with as many channels"
        )
    if style.shape[0] not in (1, content.shape[0]):
        raise ValueError(f"found {style.shape[0]} styles for {content.shape[0]} contents; expected one, or as many")
    for name, features in (("content", content), ("style", style)):
        height, width = features.shape[-2:]
        if min(height, width) < patch:
            raise ValueError(
                f"the {name}'s features are {width}×{height}; expected at least {patch}×{patch} for patch={patch}: "
                "use a larger picture or a smaller patch"
            )
    if visible is not None:
        shares = functional.adaptive_avg_pool2d(visible[None].float(), (style.shape[-2], style.shape[-1]))
        visible = shares[0].to(style.device) >= 0.5
    if style.shape[0] == 1:
        patterns = [_Patches(style[0], patch, stride, visible)] * content.shape[0]
    else:
        patterns = [_Patches(one, patch, stride, visible) for one in style]
    with torch.autocast(content.device.type, enabled=False):
        swapped = [_swap(_Patches(x, patch, stride), y, block) for x, y in zip(content, patterns, strict=True)]
        return torch.stack(swapped).to(content.dtype)


class _Patches:
    """The patches of one picture's features (C, H, W), read where they lie.

    ``values`` (H·W, C) float32 or better, ``corners`` (N,) the patches' upper left positions, ``offsets`` (P,) from
    there to each position of a patch, ``norms`` (N,) float64.
    """

    def __init__(self, features: Tensor, patch: int, stride: int, visible: Tensor | None = None) -> None:
        self.channels, self.height, self.width = features.shape
        precise = features if features.dtype == torch.float64 else features.float()
        self.values = precise.permute(1, 2, 0).reshape(-1, self.channels).contiguous()
        rows, columns = (self._starts(side, patch, stride) for side in (self.height, self.width))
        inside = torch.arange(patch)
        self.corners = (rows[:, None] * self.width + columns).flatten().to(features.device)
        self.offsets = (inside[:, None] * self.width + inside).flatten().to(features.device)
        if visible is not None:
            seen = visible.flatten()[self.corners + patch // 2 * (self.width + 1)]
            self.corners = self.corners[seen] if seen.any() else self.corners
        energies = torch.linalg.vector_norm(self.values, dim=1, dtype=torch.float64).square()
        norms = torch.zeros(len(self.corners), dtype=torch.float64, device=features.device)
        for offset in self.offsets:
            norms += energies[self.corners + offset]
        self.norms = norms.sqrt()

    @staticmethod
    def _starts(side: int, patch: int, stride: int) -> Tensor:
        starts = torch.arange(0, side - patch + 1, stride)
        return starts if starts[-1] == side - patch else torch.cat([starts, starts.new_tensor([side - patch])])

    def __len__(self) -> int:
        return len(self.corners)

    def directions(self, which: Tensor | slice, dtype: torch.dtype) -> Tensor:
        """The patches ``which``, divided by their norms: (n, P · C)."""
        positions = self.corners[which, None] + self.offsets
        patches = self.values[positions].flatten(1).to(dtype)
        return patches.div_(self.norms[which, None].clamp_min(SMALLEST_NORM).to(dtype))


def _swap(content: _Patches, style: _Patches, block: int) -> Tensor:
    """(C, H, W)."""
    starts = range(0, len(content), block)
    blocks = [_best(content, style, slice(start, min(start + block, len(content))), block) for start in starts]
    matches = style.corners[torch.cat(blocks)]
    sums = torch.zeros_like(content.values, dtype=torch.promote_types(content.values.dtype, style.values.dtype))
    counts = sums.new_zeros(len(sums), 1)
    for there, here in zip(content.offsets, style.offsets, strict=True):  # within one of them no two places coincide
        sums.index_add_(0, content.corners + there, style.values[matches + here].to(sums.dtype))
        counts[content.corners + there] += 1
    return (sums / counts).T.reshape(content.channels, content.height, content.width)


def _best(content: _Patches, style: _Patches, places: slice, block: int) -> Tensor:
    """The style patch for each content patch of a block: indices (n,)."""
    size = max(1, block // 8)
    parts = [slice(start, min(start + size, len(style))) for start in range(0, len(style), size)]
    directions = content.directions(places, torch.float32)
    # First the best similarity in each part of the style, in float32.
    peaks = torch.stack([(directions @ style.directions(part, torch.float32).T).amax(1) for part in parts], 1)
    # What rounding leaves open: twice the error of a sum, λ √n u (Higham & Mary 2019) and that of its factors; with
    # λ = 4 the first is ten times what was measured on photographs.
    error = 4 * directions.shape[1] ** 0.5 * 2.0**-24 + 2 * _FACTORS_ROUNDED[torch.get_float32_matmul_precision()]
    lengths = content.norms[places]
    open_parts = (peaks >= peaks.amax(1, keepdim=True) - 2 * error) & (lengths > 0)[:, None]
    # Then, in float64, the parts that may have the very best.
    best = torch.zeros(len(directions), dtype=torch.long, device=directions.device)
    highest = torch.full_like(best, -torch.inf, dtype=torch.float64)
    for number, part in enumerate(parts):
        rows = open_parts[:, number].nonzero()[:, 0]
        if not len(rows):
            continue
        keys = content.directions(rows + places.start, torch.float64) @ style.directions(part, torch.float64).T
        ours, theirs = lengths[rows, None], style.norms[part]
        keys -= NEARER_LENGTH * ((ours - theirs).abs() / torch.maximum(ours, theirs).clamp_min(1e-300))
        key, index = _first_max(keys)
        better = key > highest[rows]
        highest[rows[better]] = key[better]
        best[rows[better]] = index[better] + part.start
    best[lengths == 0] = style.norms.argmin()
    return best


def _first_max(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The highest of each row and its first place; ``max`` promises no particular place among equals."""
    highest = keys.amax(1)
    return highest, (keys == highest[:, None]).to(torch.uint8).argmax(1)


class InverseNet(nn.Module):
    """Features in, a picture that has them out, four times their size (Chen & Schmidt 2016).

    Convolutions 3×3 with ReLU: to 128 channels, nearest-neighbour upsampling by 2 and 128, 64, upsampling and 64, 3.

    Args:
        channels: of the features. 256 (a full VGG at relu3_1) gives 555,075 parameters without norm, 64 (the slim
            one) 333,891.
        norm: ``instance``, ``batch`` or ``none``, after every convolution but the last.
        output: ``sigmoid`` gives [0, 1]; ``linear`` has no bound.
    """

    def __init__(self, channels: int = 256, norm: Norm = "none", output: str = "sigmoid") -> None:
        super().__init__()
        self.config = {"channels": channels, "norm": norm, "output": output}
        if channels < 1:
            raise ValueError(f"channels is {channels}; expected at least 1")
        if output not in ("sigmoid", "linear"):
            raise ValueError(f"output is {output!r}; expected sigmoid or linear")
        self.channels, self.output = channels, output
        self.decode = nn.Sequential(
            ConvBlock(channels, 128, 3, norm=norm, padding="reflect"),
            UpBlock(128, 128, upsampling="nearest", norm=norm, padding="reflect"),
            ConvBlock(128, 64, 3, norm=norm, padding="reflect"),
            UpBlock(64, 64, upsampling="nearest", norm=norm, padding="reflect"),
            Conv(64, 3, 3, padding="reflect"),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) to an image (B, 3, 4h, 4w).

        Raises:
            ValueError: another shape.
        """
        if features.dim() != 4 or features.shape[1] != self.channels:
            raise ValueError(f"found features of shape {tuple(features.shape)}; expected (B, {self.channels}, h, w)")
        image: Tensor = self.decode(features)
        return torch.sigmoid(image) if self.output == "sigmoid" else image


class StyleSwap(nn.Module):
    """Content and style in, the content made of the style's patches out.

    Args:
        encoder: gives the features.
        inverse: makes a picture of them.
        layer: where patches are swapped; one that has a quarter of the picture's size, such as relu3_1.

    Raises:
        ValueError: a layer that the encoder does not have, or of another size or number of channels.
    """

    def __init__(self, encoder: VGGEncoder, inverse: InverseNet, layer: str = "relu3_1") -> None:
        super().__init__()
        encoder.check_layers([layer])
        self.encoder, self.inverse, self.layer = encoder, inverse, layer
        with torch.no_grad():
            found = self.encode(torch.zeros(1, 3, 16, 16, device=next(encoder.buffers()).device))
        if found.shape[1:] != (inverse.channels, 4, 4):
            raise ValueError(
                f"{layer} of {encoder.name} has {found.shape[1]} channels at 1/{16 // found.shape[-1]} of the size; "
                f"the inverse network takes {inverse.channels} at 1/4"
            )

    @classmethod
    def from_checkpoint(cls, checkpoint: ModelFile) -> StyleSwap:
        """What a model file of kind ``swap`` holds.

        Raises:
            ModelFileError: its encoder and its network do not fit each other, or its metadata.
        """
        try:
            assert isinstance(checkpoint.network, InverseNet), f"its network is {type(checkpoint.network).__name__}"
            return cls(encoder_in(checkpoint), checkpoint.network, checkpoint.metadata["encoder"]["layer"])
        except Exception as error:  # whatever foreign metadata and foreign tensors lead to
            raise unfit(checkpoint, error) from None

    def encode(self, image: Tensor) -> Tensor:
        """An image (B, 3, H, W) to its features (B, C, ⌈H / 4⌉, ⌈W / 4⌉), padded by reflection."""
        return self.encoder(pad_to_multiple(image, 4), [self.layer])[self.layer]

    def forward(
        self, content: Tensor, style: Tensor, patch: int = 3, stride: int = 1, visible: Tensor | None = None
    ) -> Tensor:
        """Paint the content with patches of the style.

        Args:
            content: (B, 3, H, W), RGB in [0, 1], H and W ≥ 16.
            style: (B or 1, 3, H', W'), likewise, of any size of its own.
            patch, stride: as ``swap`` takes them.
            visible: bool (H', W'), the pixels of the style that can be seen; None: all.

        Returns:
            (B, 3, H, W), in the range of the inverse network's ``output``.

        Raises:
            ValueError: another shape, a smaller picture, or as ``swap``.
        """
        check_patch(patch, stride)
        check_size(content)
        check_size(style)
        swapped = swap(self.encode(content), self.encode(style), patch, stride, visible=visible)
        return crop(self.inverse(swapped), *content.shape[-2:])
