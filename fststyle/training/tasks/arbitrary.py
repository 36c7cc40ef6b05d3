"""A network for any painting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fststyle.encoders.truncated import truncated_encoder
from fststyle.losses import LossTerms, PerceptualLoss, measure_normalizers
from fststyle.networks.arbitrary import DEEPEST, ArbitraryNet, style_statistics
from fststyle.networks.octaves import in_octaves
from fststyle.training.tasks.style import PaintingTask


class Painted(NamedTuple):
    """Photographs (B, 3, H, W), statistics (B, F) and style targets (B, …) of their paintings."""

    photographs: Tensor
    statistics: Tensor
    targets: dict[str, Tensor]


class ArbitraryTask(PaintingTask):
    """Train a network to paint in the style of any painting (Ghiasi et al. 2017): each photograph has a style picture.

    The objective is that of ``StyleTask``, for each photograph by its style picture.

    Args:
        network: ``networks.arbitrary.ArbitraryNet``.
        loss: balanced, over an encoder that carries measurements of photographs.
        stability_weight: as in ``StyleTask``.
        train: ``all``, or ``norms``: what predicts scales, shifts and colours alone, for convolutions that stay.
        component_pictures: crops of style pictures whose statistics' principal components a style is predicted from.
        options: as in ``PaintingTask``.
    """

    kind = "arbitrary"

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        stability_weight: float = 0.0,
        train: str = "all",
        component_pictures: int = 600,
        **options: Any,
    ) -> None:
        super().__init__(network, loss, stability_weight=stability_weight, train=train, **options)
        if not isinstance(network, ArbitraryNet):
            raise ValueError(f"the network is a {type(network).__name__}; any painting takes network=arbitrary")
        if loss.encoder is None or not loss.balanced:
            raise ValueError("any painting is trained with a balanced loss, such as loss=balanced")
        with torch.no_grad():
            found = style_statistics(
                loss.encoder, torch.zeros(1, 3, 32, 32, device=next(loss.encoder.buffers()).device)
            )
        if found.shape[1] != network.config["statistics"]:
            raise ValueError(
                f"{loss.encoder.name} gives {found.shape[1]} statistics of a painting, and the network takes "
                f"{network.config['statistics']}; set network.statistics={found.shape[1]}"
            )
        network.painter.requires_grad_(train == "all")
        if component_pictures < 2:
            raise ValueError(f"component_pictures is {component_pictures}; expected at least 2")
        self.component_pictures = component_pictures
        self._style: Tensor | None = None

    def on_fit_start(self) -> None:
        super().on_fit_start()
        network: Any = self.network
        if network.centre.any():  # known from init_from, or from the run before
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        encoder: Any = self.loss.encoder
        found = [
            style_statistics(encoder, style.to(self.device)) for style in data.style_pictures(self.component_pictures)
        ]
        network.learn_components(self.trainer.strategy.broadcast(torch.cat(found)))

    @torch.no_grad()
    def inputs(self, batch: Mapping[str, Any]) -> Painted:
        paintings, loss = batch["style"], self.loss
        self._style = paintings[:1]
        assert loss.encoder is not None
        targets = loss.style_targets(paintings)
        rows = [{layer: target[[k]] for layer, target in targets.items()} for k in range(len(paintings))]
        units = measure_normalizers(loss, None, [*rows, rows[0]])  # two at least: with a row for each
        loss.normalizers = {k: v[:-1].to(paintings.device) if isinstance(v, Tensor) else v for k, v in units.items()}
        self.draw_warp(batch["image"])
        return Painted(batch["image"], style_statistics(loss.encoder, paintings), targets)

    def compute_loss(self, inputs: Painted, network: nn.Module | None = None, regularized: bool = False) -> LossTerms:
        photographs = inputs.photographs.contiguous(memory_format=torch.channels_last)
        apply = network or self.network
        which = torch.arange(len(photographs), device=photographs.device)

        def paint(image: Tensor, chosen: slice) -> Tensor:
            return apply(image, inputs.statistics[chosen])  # type: ignore[no-any-return]

        terms = self.judge(paint, photographs, inputs.targets, which, regularized)
        terms.by_image = None  # whose styles have no names
        return terms

    def show(self, photograph: Tensor, network: nn.Module) -> Tensor:
        """In the style of the last batch."""
        style = photograph if self._style is None else self._style.to(photograph)
        assert self.loss.encoder is not None
        statistics = style_statistics(self.loss.encoder, style)
        return in_octaves(lambda image: network(image, statistics), photograph, self.octaves)

    def exported(self) -> tuple[Mapping[str, Tensor] | None, dict[str, Any]]:
        assert self.loss.encoder is not None
        # What the last batch's paintings decided is nothing to keep.
        self.loss.normalizers = {k: v for k, v in self.loss.normalizers.items() if not isinstance(v, Tensor)}
        weights, metadata = truncated_encoder(self.loss.encoder, DEEPEST)
        return weights, {**super().exported()[1], "encoder": metadata}
