"""Whether a style network is sound: scores of what it makes of probe pictures, as pure functions.

Nearly flat pictures say most. A network sees in them nothing but faint noise, everywhere alike, so its
result should be alike everywhere, too: what depends on the distance from the border was made by the
padding, what repeats with the period of the upsampling by that, and what sticks out in one place by a
runaway activation. (Quite flat ones say nothing: instance norm makes zero of them.) A photograph tells
whether there is a picture at all: contrast, colours that differ from place to place, and values that
are not crushed to black and white.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from fststyle.losses.functional import WINDOW, folded

#: Score to what it may be at most; those of ``_LEAST``: at least.
LIMITS = {
    "non_finite": 0.0,
    "contrast": 0.04,
    "colour": 0.02,
    "response": 0.02,
    "saturation": 0.5,
    "border": 7.0,
    "checkerboard": 0.25,
    "blobs": 12.0,  # waves and moons painted on an even picture reach 10
}
_LEAST = ("contrast", "colour", "response")
#: What a score beyond its limit means.
_MEANING = {
    "non_finite": "values that are not finite",
    "contrast": "a result without contrast",
    "colour": "one colour everywhere",
    "response": "one result, whatever the picture",
    "saturation": "values crushed to black and white",
    "border": "bands along the border",
    "checkerboard": "a checkerboard",
    "blobs": "spots",
}
#: Width of the ring that is left out of the inside, pixels.
RING = 8
#: Standard deviation of the noise on flat probes.
NOISE = 4 / 255
_FLAT = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "flat": (0.8, 0.45, 0.2)}


def probes(size: int = 144) -> dict[str, Tensor]:
    """Pictures (1, 3, S, S) that ask one thing each: nearly flat ones, a grey ramp, a fine checker.

    Args:
        size: pixels; 2 · ``RING`` and a multiple of ``WINDOW``.
    """
    generator = torch.Generator().manual_seed(0)
    made = {
        name: (torch.tensor(colour).view(1, 3, 1, 1) + NOISE * torch.randn(1, 3, size, size, generator=generator))
        for name, colour in _FLAT.items()
    }
    made["ramp"] = torch.linspace(0, 1, size).view(1, 1, 1, size).expand(1, 3, size, size)
    index = torch.arange(size)
    made["checker"] = ((index[:, None] + index) % 2).float().expand(1, 3, size, size)
    return {name: image.clamp(0, 1).contiguous() for name, image in made.items()}


@torch.no_grad()
def scores(network: Callable[[Tensor], Tensor], photograph: Tensor) -> dict[str, float]:
    """Score a network, in the mode that it is in.

    Args:
        network: image in, image of the same size out; what leaves [0, 1] is clamped.
        photograph: (1, 3, H, W) in [0, 1], on the network's device, 32 pixels or more each way.

    Returns:
        Each of ``LIMITS`` to its score:

        - ``non_finite``: share of values that are NaN or infinite, over all probes;
        - ``contrast``: standard deviation of the stylised photograph;
        - ``colour``: standard deviation of its colours from one 16th of its width and height to the next;
        - ``response``: how far the results of different probes are apart, root mean square;
        - ``saturation``: share of the stylised photograph's values that are black or white;
        - ``border``, ``checkerboard``, ``blobs``: as the functions of these names say, of the flat probes.
    """
    asked = {name: image.to(photograph) for name, image in probes().items()} | {"photograph": photograph}
    raw = {name: network(image).float() for name, image in asked.items()}
    finite = torch.cat([torch.isfinite(image).flatten() for image in raw.values()])
    seen = {name: torch.nan_to_num(image, 0.5, 1.0, 0.0).clamp(0, 1) for name, image in raw.items()}
    picture = seen["photograph"]
    flat = torch.cat([seen[name] for name in _FLAT])
    results = torch.cat([image for name, image in seen.items() if name != "photograph"])
    return {
        "non_finite": float((~finite).float().mean()),
        "contrast": float(picture.std()),
        "colour": float(F.adaptive_avg_pool2d(picture, 16).std((2, 3)).max()),
        "response": float((results - results.mean(0)).square().mean().sqrt()),
        "saturation": float(((picture < 1 / 255) | (picture > 254 / 255)).float().mean()),
        "border": border(flat),
        "checkerboard": checkerboard(flat),
        "blobs": blobs(flat),
    }


def border(images: Tensor) -> float:
    """How far the outermost lines' mean colour lies from that of the lines of the middle half.

    In the latter's standard deviations, as the mean over images and channels (chance gives about 1); the worst side.

    Args:
        images: results of nearly flat pictures, (B, 3, H, W).
    """
    found: list[float] = []
    for dim in (2, 3):
        lines = images.mean(5 - dim)  # (B, 3, lines)
        quarter = lines.shape[2] // 4
        inside = lines[..., quarter:-quarter]
        distance = (lines - inside.mean(2, keepdim=True)).abs() / inside.std(2, keepdim=True).clamp_min(1 / 255)
        found += [float(distance[..., 0].mean()), float(distance[..., -1].mean())]
    return max(found)


def checkerboard(images: Tensor) -> float:
    """How much of an image's fine detail repeats with the period of the upsampling: 0 none, 1 all of it.

    Each window of 32 pixels is folded to its mean 4×4 pixels: the energy at the frequencies that are
    multiples of a quarter, of which noise or strokes leave 1/8 of their amplitude. Root mean square,
    over that of the detail finer than 9 pixels. The largest over images.

    Args:
        images: results of nearly flat pictures, (B, 3, H, W).
    """
    inside = _inside(images, WINDOW)
    detail = inside - F.avg_pool2d(F.pad(inside, (4, 4, 4, 4), mode="reflect"), 9, 1)
    strength = detail.square().mean((1, 2, 3)).sqrt()
    return float((folded(inside).square().mean((1, 2, 3, 4, 5)).sqrt() / strength.clamp_min(2 / 255)).max())


def blobs(images: Tensor) -> float:
    """How far the oddest 8×8 block's mean colour lies from the median block's, in robust standard deviations.

    Args:
        images: results of nearly flat pictures, (B, 3, H, W).
    """
    blocks = F.avg_pool2d(_inside(images, 8), 8).flatten(2)
    distance = (blocks - blocks.median(2, keepdim=True).values).abs()
    spread = 1.4826 * distance.median(2, keepdim=True).values
    return float((distance / spread.clamp_min(0.01)).max())


def _inside(images: Tensor, multiple: int) -> Tensor:
    """Images without their border ring, sides multiples of ``multiple``."""
    height, width = ((side - 2 * RING) // multiple * multiple for side in images.shape[-2:])
    return images[:, :, RING : RING + height, RING : RING + width]


def faults(found: Mapping[str, float]) -> list[str]:
    """What is wrong, a line each: every score beyond its limit, and what it means."""
    lines = []
    for name, score in found.items():
        limit, least = LIMITS[name], name in _LEAST
        if not (score >= limit if least else score <= limit):
            word = "at least" if least else "at most"
            lines.append(f"{_MEANING[name]} ({name} is {score:.3g}, expected {word} {limit:g})")
    return lines
