"""The stability term: what a network makes differently of a picture that moves and flickers a little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fststyle.networks.blocks import gaussian_blur

#: Points of a warp each way, between which it is smooth.
POINTS = 5
#: Pixels of the shift of a warp at most, and of what its points differ from that by: turned, enlarged, bent.
SHIFT, BEND = 4.0, 3.0
#: Change of brightness at most, either way.
GAIN = 0.05
#: Standard deviation, in pixels, of the Gaussian that fine detail is finer than.
_FINE = 4.0
#: Of fine detail, less than a level of 255.
_LEAST = 1e-5
#: Pixels at the border that are not compared.
_BORDER = 16


def random_warp(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A warp and a brightness for ``stability_loss``.

    Every other warp is a shift by whole pixels, which needs no interpolation: nothing blurs what is compared.

    Returns:
        (1, 2, POINTS, POINTS), in pixels right and down, and a factor, ().
    """
    shift = rng.uniform(-SHIFT, SHIFT, (2, 1, 1))
    if rng.random() < 0.5:
        warp = np.broadcast_to(np.rint(shift), (2, POINTS, POINTS))
    else:
        across = np.broadcast_to(np.linspace(-1, 1, POINTS), (POINTS, POINTS))
        turn, zoom = rng.uniform(-BEND, BEND, 2)
        linear = np.stack([zoom * across - turn * across.T, turn * across + zoom * across.T])
        warp = shift + linear + rng.normal(0, BEND / 4, (2, POINTS, POINTS))
    gain = torch.tensor(1 + rng.uniform(-GAIN, GAIN), dtype=torch.float32)
    return torch.from_numpy(warp.astype(np.float32))[None], gain


def stability_loss(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    outputs: Tensor,
    warp: Tensor,
    gain: Tensor | float = 1.0,
    noise: Tensor | float = 0.0,
) -> Tensor:
    """What a network makes differently of a picture that is warped, a little brighter or darker, and noisy, but for the
    warp itself; over the fine detail that it makes.

    Networks that reduce and enlarge are equivariant to movements of whole steps of their coarsest grid only (Zhang
    2019, "Making convolutional networks shift-invariant again"): edges end in steps of 4 pixels, and a film flickers.
    A warp whose flow is known takes the place of the next frame of a video (Eilertsen, Mantiuk, Unger 2019,
    "Single-frame regularization for temporally stable CNNs").

    The divisor makes styles comparable: networks that were trained without this term measure 0.6 to 1.4, a painting of
    strong strokes no more than one of soft ones. It has no gradient, so that detail is not made for its own sake.

    Args:
        network: (B, 3, H, W) to the same size.
        images, outputs: what it was given and what it made, (B, 3, H, W) each.
        warp: (1, 2, K, K), where each pixel is taken from: pixels right and down of where it is, smooth between the
            points; a tensor, so that a compiled graph serves all.
        gain: factor of the brightness.
        noise: added to what is warped, (B or 1, 3, H, W): that of a camera's sensor for example.

    Returns:
        Scalar, the mean over the batch: mean squared difference of the pixels that are, and were, at least 16 pixels,
        or a quarter of a side, from the border, as what came into view is not compared; over the mean square of what
        is finer than a Gaussian of 4 pixels in ``outputs``.
    """
    height, width = images.shape[-2:]
    y = torch.arange(height, device=images.device, dtype=torch.float32)[:, None]
    x = torch.arange(width, device=images.device, dtype=torch.float32)
    flow = F.interpolate(warp.float(), (height, width), mode="bicubic", align_corners=True)[0]
    from_x, from_y = x + flow[0], y + flow[1]
    grid = torch.stack([from_x * 2 / (width - 1) - 1, from_y * 2 / (height - 1) - 1], -1)[None]

    def warped(image: Tensor) -> Tensor:
        return F.grid_sample(
            image.float(), grid.expand(len(image), -1, -1, -1), "bicubic", "reflection", align_corners=True
        )

    given = warped(images).mul(gain).clamp(0, 1)
    again = network((given + noise).to(images.dtype))
    border = min(_BORDER, min(height, width) // 4)
    known = torch.ones_like(from_x)
    for at, was, side in ((x, from_x, width), (y, from_y, height)):
        for place in (at, was):
            known = known * ((place >= border) & (place <= side - 1 - border))
    difference = (again.float() - warped(outputs)).square().mean(1)
    with torch.no_grad():
        made = outputs.float()
        fine = (made - gaussian_blur(made, _FINE)).square().mean((1, 2, 3))
    return ((difference * known).sum((1, 2)) / known.sum().clamp(min=1) / (fine + _LEAST)).mean()
