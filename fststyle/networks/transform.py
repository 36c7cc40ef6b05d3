"""TransformNet: the feed-forward image transformation network of Johnson, Alahi, Fei-Fei (2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fststyle.mixtures import of_one_style
from fststyle.networks.blocks import (
    ColorTransform,
    Conv,
    ConvBlock,
    ImageNetwork,
    InstanceNorm,
    KuwaharaFilter,
    Norm,
    Padding,
    ResidualBlock,
    UpBlock,
)


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
        styles: with more than one, every style has scales and shifts of its own in the instance norms, and all share
            the convolutions (Dumoulin, Shlens, Kudlur 2017); ``forward`` then takes a mixture of them.
        colors: behind the last convolution, a ``ColorTransform`` of each style's own.
        kuwahara: radius in pixels of a ``KuwaharaFilter`` on the result, outside training; 0: none.
        smoothed: how much of the filter's result each style has, (styles,) from 0 to 1; None: all of it.
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
        styles: int = 1,
        colors: bool = False,
        kuwahara: float = 0.0,
        smoothed: Sequence[float] | None = None,
    ) -> None:
        super().__init__(output, multiple=4, border=border)  # two strides of 2
        kuwahara = float(kuwahara) if smoothed is None or any(smoothed) else 0.0
        self.config: dict[str, Any] = (
            {
                "width": width,
                "residual_blocks": residual_blocks,
                "norm": norm,
                "padding": padding,
                "upsampling": upsampling,
                "border": border,
                "output": output,
            }
            | ({"styles": styles} if styles != 1 else {})
            | ({"colors": True} if colors else {})
            | ({"kuwahara": kuwahara} if kuwahara else {})
            | ({"smoothed": [*map(float, smoothed or ())]} if kuwahara and {*(smoothed or [1])} != {1} else {})
        )
        if width < 1 or residual_blocks < 0:
            raise ValueError(f"width is {width}, residual_blocks {residual_blocks}; expected ≥ 1 and ≥ 0")
        if border not in (0, 8 * residual_blocks):
            raise ValueError(
                f"border is {border}; expected 0 (padded residual blocks) or {8 * residual_blocks} "
                f"(what {residual_blocks} unpadded residual blocks take away)"
            )
        if padding not in ("reflect", "zeros"):
            raise ValueError(f"padding is {padding!r}; expected reflect or zeros")
        if styles < 1 or (styles > 1 and norm != "instance"):
            raise ValueError(f"styles is {styles}, norm {norm!r}; expected at least 1, and instance for more than 1")
        if smoothed is not None and len(smoothed) != styles:
            raise ValueError(f"smoothed has {len(smoothed)} numbers; expected one for each of {styles} styles")
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
        self.colors = ColorTransform() if colors else nn.Identity()
        if kuwahara:
            self.finish = KuwaharaFilter(kuwahara, [1.0] * styles if smoothed is None else [*smoothed])
        self.styles = styles
        if styles > 1:
            for name, value in self.style_parameters().items():
                owner, _, key = name.rpartition(".")
                setattr(self.get_submodule(owner), key, nn.Parameter(value.detach().expand(styles, -1).clone()))

    def forward(self, image: Tensor, mixture: Tensor | None = None, *, _mixed: bool = False) -> Tensor:
        """As ``ImageNetwork.forward``.

        Args:
            image: (B, 3, H, W), RGB in [0, 1], H and W ≥ 16.
            mixture: (B, styles) or (1, styles), how much of each style a picture gets; rows that sum to 1. Given where
                the network has more than one style, and only there.
        """
        if _mixed or (self.styles == 1 and mixture is None):
            return super().forward(image)
        if mixture is None or mixture.shape[-1:] != (self.styles,) or mixture.dim() != 2 or self.styles == 1:
            found = None if mixture is None else tuple(mixture.shape)
            expected = "none" if self.styles == 1 else f"(B, {self.styles})"
            raise ValueError(f"found a mixture of shape {found}; expected {expected}")
        return functional_call(self, self.mixed_parameters(mixture), (image,), {"_mixed": True})

    def style_parameters(self) -> dict[str, nn.Parameter]:
        """What each style has of its own, by name: scales and shifts of all instance norms, and the colour transform.

        (C,) each, or (styles, C) for more than one style.
        """
        own = (InstanceNorm, ColorTransform)
        found = ((name, module) for name, module in self.named_modules() if isinstance(module, own))
        return {f"{name}.{key}": value for name, module in found for key, value in module.named_parameters()}

    def mixed_parameters(self, mixture: Tensor) -> dict[str, Tensor]:
        """``style_parameters``, and the filter's share, for a mixture (B, styles): (B, C) each."""
        # As sums of products, which autocast leaves in float32.
        own: dict[str, Tensor] = {**self.style_parameters()}
        if isinstance(self.finish, KuwaharaFilter):
            own["finish.share"] = self.finish.share
        rows = {name: value.reshape(self.styles, -1) for name, value in own.items()}
        return {name: (mixture.to(value.dtype)[..., None] * value).sum(1) for name, value in rows.items()}

    @torch.no_grad()
    def of_mixture(self, mixture: Tensor) -> TransformNet:
        """A network for one style, that of a mixture (styles,); it shares no memory with this one."""
        network = TransformNet(**of_one_style(self.config, mixture.tolist()))
        own = {name: value[0] for name, value in self.mixed_parameters(mixture[None]).items() if "finish" not in name}
        network.load_state_dict({**self.state_dict(), **own})
        return network.train(self.training)

    def with_colors(self) -> TransformNet:
        """The same network with a colour transform that changes nothing, if it has none."""
        return self if self.config.get("colors") else self._with(colors=True)

    def with_kuwahara(self, radius: float, smoothed: Sequence[float] | None = None) -> TransformNet:
        """The same network with a filter of this radius, as far as ``smoothed`` says; 0: without one."""
        return self._with(kuwahara=radius, smoothed=smoothed)

    @torch.no_grad()
    def _with(self, **changes: Any) -> TransformNet:
        network = TransformNet(**{**self.config, **changes})
        network.load_state_dict(self.state_dict(), strict=False)
        return network.train(self.training)

    @property
    def shape(self) -> dict[str, Any]:
        """The arguments that decide the convolutions, without those of what styles have of their own."""
        own = ("styles", "colors", "kuwahara", "smoothed")
        return {key: value for key, value in self.config.items() if key not in own}

    @property
    def smoothed(self) -> list[float]:
        """How much of its filter's result each style has."""
        default = 1.0 if self.config.get("kuwahara") else 0.0
        return self.config.get("smoothed", [default] * self.styles)  # type: ignore[no-any-return]

    @torch.no_grad()
    def fold_color_transform(self, matrix: Tensor, shift: Tensor) -> None:
        """Apply an affine map of the channels, matrix (3, 3) and shift (3,), to the values before the output function.

        It is folded into the colour transform, if there is one, else into the last convolution. For one style.
        """
        matrix, shift = (value.to(next(self.parameters())) for value in (matrix, shift))
        if isinstance(self.colors, ColorTransform):
            weight, bias, rows = self.colors.weight, self.colors.bias, (3, 3)
        else:
            last = self.decode[-1].conv  # type: ignore[union-attr]
            weight, bias, rows = last.weight, last.bias, (3, -1)  # type: ignore[union-attr, assignment]
        weight.copy_((matrix @ weight.reshape(rows)).view_as(weight))
        bias.copy_(matrix @ bias + shift)

    def stages(self) -> tuple[nn.Module, ...]:
        """From the picture to quarter resolution, residual blocks there, up again, and a style's colours."""
        return self.encode, self.transform, self.decode, self.colors


def in_common(networks: Sequence[TransformNet]) -> tuple[list[TransformNet], dict[str, Any]]:
    """Networks of the same convolutions as one.

    Returns:
        The networks, all with a colour transform if one has it, which changes nothing in the others; and the arguments
        of one network for all their styles, with a filter of which those without have a share of 0.

    Raises:
        ValueError: filters of different radius.
    """
    found = [*networks]
    if any(network.config.get("colors") for network in found):
        found = [network.with_colors() for network in found]
    radii = sorted({radius for network in found if (radius := network.config.get("kuwahara"))})
    if len(radii) > 1:
        raise ValueError(f"found Kuwahara filters of radius {' and '.join(map(str, radii))}; expected one radius")
    arguments = {**found[0].config, "styles": sum(network.styles for network in found)}
    if radii:
        smoothed = [share for network in found for share in network.smoothed]
        arguments |= {"kuwahara": radii[0], "smoothed": smoothed}
    return found, arguments
