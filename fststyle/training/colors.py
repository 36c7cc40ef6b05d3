"""A trained network's contrast and saturation, brought to those of its painting.

A network that keeps a photograph recognisable keeps some of its greys too: over many photographs lightness and colours
spread 3 to 24 % less than the painting's, and everything it makes looks veiled beside it. One stretch of lightness and
one of the differences from it, the same for all photographs, undo that. Stretching each axis of colour by itself, as
``color.match_color`` does for a picture, enlarges faint fringes to hues that the painting lacks.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from fststyle.color import LIGHTNESS
from fststyle.networks.octaves import in_octaves
from fststyle.networks.transform import TransformNet

log = logging.getLogger(__name__)

#: Photographs that tell a network's colours from those of the photographs; with fewer nothing is changed.
LEAST = 8
#: The most that contrast or saturation is multiplied by, or divided; more shows as fringes and tinted paper.
_MOST = 1.25
#: Times that they are measured and changed: values near the ends of the sigmoid follow less.
_ROUNDS = 2
#: How near 0 and 1 a colour is still told from them, before the sigmoid.
_EDGE = 1e-4


def spread(images: Tensor) -> Tensor:
    """How the colours of images (B, 3, H, W), RGB in [0, 1], spread over all their pixels: (5,), their mean and the
    standard deviations of lightness (contrast) and of the difference from it (saturation)."""
    colors = images.detach().float().cpu().transpose(0, 1).flatten(1)
    lightness = LIGHTNESS @ colors
    difference = colors - lightness
    around = (difference - difference.mean(1, keepdim=True)).square().sum(0).mean().sqrt()
    return torch.cat([colors.mean(1), torch.stack([lightness.std(correction=0), around])])


@torch.no_grad()
def match_colors(network: TransformNet, painting: Tensor, photographs: Tensor, octaves: int = 1) -> Tensor:
    """Give what a network makes the painting's mean colour, contrast and saturation, by changing its last layer.

    Args:
        network: of one style, with ``output="sigmoid"``; it is changed in place.
        painting: ``spread`` of the painting, which what is made of all photographs is to have.
        photographs: (B, 3, H, W), RGB in [0, 1], as varied as those that the network is for; at least ``LEAST``.
        octaves: in which the network is applied.

    Returns:
        (2,), what contrast and saturation were multiplied by, before the sigmoid.
    """
    gains = torch.ones(2)
    light = LIGHTNESS.expand(3, 3)
    for _ in range(_ROUNDS):
        made = torch.cat([in_octaves(network, part, octaves).float().cpu() for part in photographs.split(4)])
        found = spread(made)
        wanted = (gains * painting[3:] / found[3:].clamp_min(1e-6)).clamp(1 / _MOST, _MOST)
        (contrast, saturation), gains = wanted / gains, wanted
        matrix = contrast * light + saturation * (torch.eye(3) - light)
        centre = torch.logit(made, _EDGE).mean((0, 2, 3))
        slope = (made * (1 - made)).mean((0, 2, 3)).clamp_min(_EDGE)
        network.fold_color_transform(matrix, centre - matrix @ centre + (painting[:3] - found[:3]) / slope)
    return gains


@torch.no_grad()
def match_styles(network: TransformNet, paintings: Tensor, photographs: Tensor, octaves: int = 1) -> TransformNet:
    """``match_colors`` for each style of a network, of one or of several; paintings (styles, 5).

    Returns:
        The network, changed; of several styles that shared the last layer alone, another one with colours for each.
    """
    several = network.styles > 1
    network = network.with_colors() if several else network
    for index, painting in enumerate(paintings):
        mixture = torch.eye(network.styles, device=photographs.device)[index]
        one = network.of_mixture(mixture) if several else network
        gains = match_colors(one.to(photographs.device), painting, photographs, octaves)
        log.info("colours of style %d: contrast × %.2f, saturation × %.2f", index + 1, *gains.tolist())
        if several:
            own = one.style_parameters()
            for name, value in network.style_parameters().items():
                value[index] = own[name]
    return network
