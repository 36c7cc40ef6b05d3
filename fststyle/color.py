"""Colours of one picture in another: luminance kept apart, linear matching, histograms.

Images are (1, 3, H, W), RGB in [0, 1], as everywhere.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fststyle.images import to_image, to_pixels
from fststyle.images.arrays import YCBCR

_YCBCR = torch.from_numpy(YCBCR)


def with_luminance(image: Tensor, luminance: Tensor) -> Tensor:
    """The colours of ``image`` under the luminance of another picture of its size (Gatys et al. 2016b, § 3.2).

    Args:
        image, luminance: (1, 3, H, W).

    Returns:
        (1, 3, H, W), clamped to [0, 1].
    """
    if image.shape != luminance.shape:
        raise ValueError(
            f"found images of shapes {tuple(image.shape)} and {tuple(luminance.shape)}; expected one shape"
        )
    matrix = _YCBCR.to(image)
    mixed = torch.einsum("ij,bjhw->bihw", matrix, image)
    mixed[:, :1] = torch.einsum("ij,bjhw->bihw", matrix[:1], luminance)
    return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(matrix), mixed).clamp(0, 1)


def match_color(image: Tensor, target: Tensor) -> Tensor:
    """An image with the mean and covariance of another one's colours (Gatys et al. 2016b, § 3.1, eq. 4).

    x ↦ A (x - μ) + μ_target with A = Σ_target^½ Σ^-½, both roots symmetric ("image analogies").

    Args:
        image: (1, 3, H, W).
        target: (1, 3, H', W'), of any size.

    Returns:
        (1, 3, H, W), clamped to [0, 1].
    """
    mean, _, inverse = _color_statistics(image)
    wanted_mean, wanted_root, _ = _color_statistics(target)
    colors = image.double().flatten(2)[0]
    matched = wanted_root @ inverse @ (colors - mean) + wanted_mean
    return matched.reshape(image.shape).to(image.dtype).clamp(0, 1)


def _color_statistics(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (3, 1) of the colours, and the symmetric square root of their covariance with its inverse."""
    colors = image.double().flatten(2)[0]
    mean = colors.mean(1, keepdim=True)
    centred = colors - mean
    values, vectors = torch.linalg.eigh(centred @ centred.T / colors.shape[1] + 1e-6 * torch.eye(3).to(colors))
    root = vectors @ torch.diag(values.sqrt()) @ vectors.T
    return mean, root, torch.linalg.inv(root)


def luminance(image: Tensor) -> Tensor:
    """Y of ITU-R BT.601 in its range for video, 16/255 to 235/255: (B, 1, H, W) of RGB (B, 3, H, W) in [0, 1].

    The scale on which PSNR and SSIM of super-resolution are published.
    """
    weights = _YCBCR[:1].to(image) * (219 / 255)
    return torch.einsum("ij,bjhw->bihw", weights, image) + 16 / 255


def match_histogram(image: Tensor, target: Tensor) -> Tensor:
    """An image whose channels have the values of another one's: exact histogram matching by rank.

    Args:
        image: (1, 3, H, W).
        target: (1, 3, H', W'), of any size.

    Returns:
        (1, 3, H, W).
    """
    values, wanted = image.flatten(2)[0], target.flatten(2)[0].sort(dim=1).values
    ranks = values.argsort(dim=1).argsort(dim=1)
    count, available = values.shape[1], wanted.shape[1]
    # The k-th of n values takes the target's quantile (k + ½) / n, between its sorted values.
    place = ((ranks.double() + 0.5) / count * available - 0.5).clamp(0, available - 1)
    below = place.floor().long()
    above = (below + 1).clamp_max(available - 1)
    share = (place - below).to(wanted.dtype)
    matched = wanted.gather(1, below).lerp(wanted.gather(1, above), share)
    return matched.reshape(image.shape)


def with_histogram_of(rgb: np.ndarray, target: np.ndarray) -> np.ndarray:
    """``match_histogram`` for decoded pictures, uint8 (H, W, 3), of any sizes."""
    return to_pixels(match_histogram(to_image(rgb), to_image(target)))
