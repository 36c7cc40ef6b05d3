"""A network that makes pictures of swapped features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fststyle.encoders.truncated import truncated_encoder
from fststyle.images import MIN_SIDE
from fststyle.losses import LossTerms, PerceptualLoss, pixel_loss
from fststyle.networks.styleswap import InverseNet, StyleSwap, check_patch, swap
from fststyle.training.tasks.base import Task, check_weight


class InverseTask(Task):
    """Train a network to make pictures of swapped features, whatever the style (Chen & Schmidt 2016, § 4.2).

    Each step decodes the features of photographs, those of style pictures, and the swap of every photograph
    with every style; the features of what comes out are to be those that went in.

    Args:
        network: ``networks.styleswap.InverseNet``, with as many channels as the encoder's layer.
        loss: of one content layer, at which patches are swapped.
        patch, stride: of the swap.
        pixel_weight: of the mean squared difference to the photographs and style pictures, of those features that
            are of one picture alone, in what is minimised. Features leave colours to find; this finds them soon.
        options: as in ``Task``.
    """

    kind = "swap"

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        patch: int = 3,
        stride: int = 1,
        pixel_weight: float = 5.0,
        **options: Any,
    ) -> None:
        super().__init__(network, loss, **options)
        check_patch(patch, stride)
        self.pixel_weight = check_weight(pixel_weight, "pixel_weight")
        if loss.encoder is None or len(loss.content_layers) != 1 or loss.style_layers:
            raise ValueError("style swap is trained with a loss of one content layer alone, such as loss=inverse")
        if not isinstance(network, InverseNet):
            raise ValueError(f"the network is a {type(network).__name__}; style swap takes network=inverse")
        (self.layer,) = loss.content_layers
        StyleSwap(loss.encoder, network, self.layer)  # refuses what does not fit
        self.patch, self.stride = patch, stride
        self._style: Tensor | None = None

    def check_crops(self, size: int) -> None:
        least = max(MIN_SIDE, 4 * self.patch)
        if size < least or size % 4:
            raise ValueError(f"data.size is {size}; expected a multiple of 4 of at least {least}")

    @torch.no_grad()
    def inputs(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Features (2 B + B², C, H / 4, W / 4) of photographs, styles and all their swaps; the 2 B pictures."""
        photographs, styles = batch["image"], batch["style"]
        self._style = styles[:1]
        content, style = self._encode(photographs), self._encode(styles)
        count = len(content)
        swapped = swap(content.repeat_interleave(len(style), 0), style.repeat(count, 1, 1, 1), self.patch, self.stride)
        return torch.cat([content, style, swapped]), torch.cat([photographs, styles])

    def _encode(self, image: Tensor) -> Tensor:
        assert self.loss.encoder is not None
        return self.loss.encoder(image, [self.layer])[self.layer]

    def compute_loss(
        self, inputs: tuple[Tensor, Tensor], network: nn.Module | None = None, regularized: bool = False
    ) -> LossTerms:
        """Judge what is made of features (N, C, h, w) by its own; of the first, the pictures (M, 3, H, W) are known."""
        features, pictures = inputs
        output = (network or self.network)(features)
        terms: LossTerms = self.loss(output, content={self.layer: features})
        if regularized and self.pixel_weight:
            terms.total = terms.total + self.pixel_weight * pixel_loss(output[: len(pictures)], pictures)
        return terms

    def show(self, photograph: Tensor, network: nn.Module) -> Tensor:
        """In the style of the last batch."""
        style = photograph if self._style is None else self._style.to(photograph)
        features = swap(self._encode(photograph), self._encode(style), self.patch, self.stride)
        return network(features)  # type: ignore[no-any-return]

    def exported(self) -> tuple[Mapping[str, Tensor] | None, dict[str, Any]]:
        assert self.loss.encoder is not None
        weights, metadata = truncated_encoder(self.loss.encoder, self.layer)
        return weights, {"encoder": metadata}
