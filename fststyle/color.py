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
#: Lightness of a colour, (1, 3): luma of BT.601.
LIGHTNESS = _YCBCR[:1]


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
    return match_statistics(image.double(), color_statistics(target.double())).to(image.dtype)


def color_statistics(image: Tensor) -> Tensor:
    """Of each image (B, 3, H, W) the mean of its colours and the symmetric root of their covariance: (B, 4, 3)."""
    with torch.autocast(image.device.type, enabled=False):
        mean, covariance = _moments(image)
        return torch.cat([mean.transpose(1, 2), _roots(covariance, 1e-6)[0]], 1)


def match_statistics(images: Tensor, statistics: Tensor, least: float = 1e-6) -> Tensor:
    """``match_color`` for a batch and for what ``color_statistics`` gave.

    Args:
        images: (B, 3, H, W).
        statistics: (B or 1, 4, 3).
        least: added to the variances of the images' colours, so that a nearly grey image's few colours are not
            amplified beyond measure.

    Returns:
        (B, 3, H, W), clamped to [0, 1].
    """
    with torch.autocast(images.device.type, enabled=False):
        mean, covariance = _moments(images)
        matrix = statistics[:, 1:] @ _roots(covariance, least)[1]
        matched = matrix @ (images.flatten(2) - mean) + statistics[:, :1].transpose(1, 2)
        return matched.reshape(images.shape).clamp(0, 1)


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 3, 1) and covariance (B, 3, 3) of the colours of images (B, 3, H, W)."""
    colors = images.flatten(2)
    mean = colors.mean(2, keepdim=True)
    centred = colors - mean
    return mean, centred @ centred.transpose(1, 2) / colors.shape[2]


def _roots(covariance: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Symmetric square root of (B, 3, 3), ``least`` added to its diagonal, and the root's inverse.

    By the coupled Newton-Schulz iteration, which needs products only: torch has eigh on few devices. Each step
    multiplies the least eigenvalue by up to 2.25, so that 30 serve any covariance of colours in [0, 1].
    """
    unit = torch.eye(3, dtype=covariance.dtype, device=covariance.device)
    covariance = covariance + least * unit
    size = covariance.square().sum((1, 2), keepdim=True).sqrt()
    root, inverse = covariance / size, unit.expand_as(covariance)
    for _ in range(30):
        step = 1.5 * unit - 0.5 * inverse @ root
        root, inverse = root @ step, step @ inverse
    return root * size.sqrt(), inverse / size.sqrt()


def luminance(image: Tensor) -> Tensor:
    """Y of ITU-R BT.601 in its range for video, 16/255 to 235/255: (B, 1, H, W) of RGB (B, 3, H, W) in [0, 1].

    The scale on which PSNR and SSIM of super-resolution are published.
    """
    weights = _YCBCR[:1].to(image) * (219 / 255)
    return torch.einsum("ij,bjhw->bihw", weights, image) + 16 / 255


def match_histogram(image: Tensor, target: Tensor) -> Tensor:
    """An image whose channels have the values of another one's: exact histogram matching by rank.

    Of a grey target, whose channels are equal, all take the place that the pixel's luminance has, so that it is grey.

    Args:
        image: (1, 3, H, W).
        target: (1, 3, H', W'), of any size.

    Returns:
        (1, 3, H, W).
    """
    if (target == target[:, :1]).all():
        matched = _by_rank(torch.einsum("j,bjhw->bhw", _YCBCR[0].to(image), image)[:, None], target[:, :1])
        return matched.expand(-1, 3, -1, -1).contiguous()
    return _by_rank(image, target)


def _by_rank(image: Tensor, target: Tensor) -> Tensor:
    """The same, channel by channel: (1, C, H, W) of (1, C, H, W) and (1, C, H', W')."""
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
