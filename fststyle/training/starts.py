"""A network that begins with what another one has learned, where it is for other styles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fststyle.losses import PerceptualLoss
from fststyle.model_file import ModelFile
from fststyle.networks.arbitrary import ArbitraryNet, encoder_of_paintings, predicted_network
from fststyle.networks.transform import TransformNet

log = logging.getLogger(__name__)


def begun_from(
    start: ModelFile, loss: PerceptualLoss, paintings: Mapping[str, Tensor], colors: bool = False
) -> nn.Module:
    """The network of a file, with norms for the styles that are to be trained.

    A style that the file has, by name, goes on from its norms. Another one begins with those of the style in the file
    whose targets are nearest to its own: marks and palette of one painting, which training bends; the mean of all would
    be a style without marks. Where nothing can be compared, as with targets of another encoder, it is the mean. A
    network for any painting predicts the norms.

    Args:
        start: of one style or several, or for any painting.
        loss: whose targets the file's may be compared with.
        paintings: by name, (1, 3, H, W).
        colors: give each style a colour transform too, which at first changes nothing.
    """
    network: Any = start.network
    if isinstance(network, ArbitraryNet) and paintings:
        encoder = encoder_of_paintings(start)
        return together([predicted_network(network, encoder, painting) for painting in paintings.values()])
    if isinstance(network, TransformNet):
        network = network.with_kuwahara(0)  # no part of training; the task adds it to what is exported
        network = network.with_colors() if colors else network
    known = {entry.name: entry.style_targets for entry in start.styles} or {
        str(start.metadata["name"]): start.style_targets
    }
    if len(known) == len(paintings) == 1 or list(known) == list(paintings) or not paintings:
        return network  # type: ignore[no-any-return]
    rows = []
    for name, painting in paintings.items():
        near = name if name in known else nearest(loss.style_targets(painting), known, loss.style_layers)
        log.info("%s begins with the norms of %s", name, near or "all styles, on average")
        rows.append([float(each == near) if near else 1 / len(known) for each in known])
    return together([network.of_mixture(torch.tensor(row)) for row in rows])


def together(networks: Sequence[TransformNet]) -> TransformNet:
    """One network of the styles of several, which have the same convolutions; one alone is returned as it is."""
    first = networks[0]
    if len(networks) == 1:
        return first
    made = TransformNet(**{**first.config, "styles": len(networks)})
    own = [each.style_parameters() for each in networks]
    rows = {name: torch.stack([each[name] for each in own]) for name in own[0]}
    made.load_state_dict({**first.state_dict(), **rows})
    return made


def nearest(
    targets: Mapping[str, Tensor], known: Mapping[str, Mapping[str, Tensor]], weights: Mapping[str, float]
) -> str | None:
    """The style whose targets differ least from given ones, relative to both, over the layers that both have.

    Args:
        targets: layer to (1, …).
        known: the same by name.
        weights: of the layers.

    Returns:
        Its name; None where no style has a layer in common.
    """

    def distance(own: Mapping[str, Tensor]) -> float:
        shared = [layer for layer in weights if layer in own and own[layer].shape == targets[layer].shape]
        if not shared:
            return float("inf")
        pairs = [(weights[layer], own[layer].square().sum(), targets[layer].square().sum(), layer) for layer in shared]
        terms = [w * float((own[layer] - targets[layer]).square().sum() / (a + b)) for w, a, b, layer in pairs]
        return sum(terms) / sum(weights[layer] for layer in shared)

    found = {name: distance(own) for name, own in known.items()}
    best = min(found, key=found.__getitem__)
    return best if found[best] < float("inf") else None
