"""The generalised Kuwahara filter, which turns fine texture into dabs with crisp edges, in numbers without PyTorch.

Around each pixel, smooth sectors of a disc have a mean colour each; what is evenest counts most (Papari, Petkov,
Campisi 2007, eq. 7 and 10). Networks trained against Gram matrices leave a fine weave over what they paint, which
paintings have not; the filter takes it away and keeps the edges of strokes.
"""

from __future__ import annotations

import math

import numpy as np

#: Sectors of the disc.
SECTORS = 8
#: Standard deviation of lightness, in [0, 1], that halves a sector's weight, which falls with its third power.
DEVIATION = 6 / 255
#: Radius in pixels that suits most styles.
RADIUS = 2.5
#: Largest radius, of which a picture of 16 pixels has room for the reach.
MOST = 7.0


def reach_of(radius: float) -> int:
    """Pixels each way that the filter sees: two standard deviations.

    Raises:
        ValueError: a radius that is not above 0, and at most ``MOST``.
    """
    if not 0 < radius <= MOST:
        raise ValueError(f"the filter's radius is {radius}; expected more than 0, at most {MOST:g} pixels")
    return math.ceil(2 * radius)


def sector_kernels(radius: float) -> np.ndarray:
    """Weights of the pixels in each sector: float32 (SECTORS, 1, K, K), each of sum 1, K = 2 · reach + 1.

    A Gaussian of standard deviation ``radius``, cut off at two, times a squared cosine of the angle, by which
    neighbouring sectors overlap.
    """
    reach = reach_of(radius)
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    square = down**2 + across**2
    gaussian = np.exp(-square / (2 * radius**2)) * (square <= (2 * radius) ** 2)
    kernels = []
    for sector in range(SECTORS):
        angle = np.arctan2(down, across) - 2 * np.pi * sector / SECTORS
        angle = (angle + np.pi) % (2 * np.pi) - np.pi
        within = np.abs(angle) <= 2 * np.pi / SECTORS
        kernel = gaussian * within * np.cos(angle * SECTORS / 4) ** 2
        kernel[reach, reach] = 0.5
        kernels.append(kernel / kernel.sum())
    return np.stack(kernels)[:, None].astype(np.float32)
