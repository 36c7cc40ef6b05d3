"""The loss terms as pure functions; ``losses.perceptual`` has the loss over them.

Conventions
===========
F is a layer's features of one image, C × H × W; N = C channels, M = H · W positions; G = F Fᵀ the
Gram matrix over channels (N × N). Every term is a mean over the batch, so that a batch may be
split without changing anything. The published systems differ in every divisor:

=================  ==========================  ==========================  =========================
term               Johnson 2016 (paper)        Johnson's code              Gatys 2015, 2016
=================  ==========================  ==========================  =========================
content            Σ(F-P)² / (C H W)     (2)   the same                    ½ Σ(F-P)²             (1)
Gram matrix        F Fᵀ / (C H W)        (3)   the same                    F Fᵀ                  (3)
style              Σ(G-A)²               (4)   Σ(G-A)² / N²                Σ(G-A)² / (4 N² M²)   (4)
total variation    Σ of squared steps          the same                    none
=================  ==========================  ==========================  =========================

(numbers are the papers' equations). Gatys' style term is computed from F Fᵀ / M as Σ(G-A)² / (4 N²):
the same value when style and output have equal size, as in the paper, and the meaningful one when
they do not. ``gram_divisor`` and ``style_form`` choose the divisors independently: the first is one of
``none``, ``hw`` (1/M), ``chw`` (1/(C M)), the second of ``sum``, ``mean`` (1/N²), ``quarter`` (1/(4 N²)).

``style_form="sliced"`` compares whole distributions of features instead of Gram matrices: the sliced Wasserstein
distance (Heitz et al. 2021, eq. 3). Features of all positions are projected on 2 C directions, the channels and their
cosine transform (DCT-II, orthonormal); along each, both sorted lists are subtracted, squared and averaged. A style
target is then the painting's sorted lists, shortened to ``QUANTILES`` means (1, 2 C, QUANTILES).

The layer ``pixels`` is the picture itself: as a style layer it asks for the painting's palette, and for nothing
beside it. It is always compared as a distribution, whatever ``style_form`` says. Gram matrices of an encoder's few
channels are soon matched with two colours and with neon fringes along edges; together with the palette they are not.

A layer's name may end in ``/2``, ``/4``, …: that layer for the picture (and painting) averaged over blocks of 2 × 2,
4 × 4, … pixels, so that larger shapes come within its view (Snelgrove 2017, § 3).

``color_weight`` (from no paper) holds colours in their places: the photograph is given the mean and covariance of the
painting's colours (``color.match_statistics``), both it and the output are averaged over blocks, and their squared
difference is averaged (``color_loss``): that of lightness over blocks of 32 × 32 pixels, that of hue and saturation,
which counts ``hue_weight`` times, over blocks of ``hue_block``, since complementary colours cancel within one. Style
terms ask which colours a picture has, content terms hardly see an even area's colour: without this one, networks turn
dark objects light and put the painting's strongest colours anywhere.

Total variation is the sum over the image of squared differences between neighbours (``squared``; Johnson's code), or of
absolute ones (``l1``); ``tv_reduction="mean"`` divides by C · H · W. ``opponent`` (from no paper) divides a difference
into its mean over the channels and the rest, of which the absolute values count ``CHROMA`` times as much. Paintings
change their colour less often than their light, and networks draw lines in complementary colours along edges.

Variants met in lecture notes and posts that are misprints and therefore absent: 1/(4 C_in² C_out²)
for 1/(4 N² M²), Σ(G·H)² for Σ(G-H)², M as the side length of a feature map. A style loss divided
by C·H·W once more beside the Gram's own divisor is ``style_divisor="chw"``.

The closed-form gradients of the papers hold for the Gatys convention behind a ReLU:
∂L_content/∂F = F - P where F > 0, else 0; ∂E/∂F = (1/(N² M²)) (G - A) F where F > 0, else 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fststyle.networks.blocks import gaussian_blur

ContentForm = Literal["mean", "half_sum"]
GramDivisor = Literal["none", "hw", "chw"]
StyleForm = Literal["sum", "mean", "quarter", "sliced"]
StyleDivisor = Literal["none", "chw"]
TVForm = Literal["squared", "l1", "opponent"]
Reduction = Literal["sum", "mean"]

#: Values that a sorted list of a style target is shortened to.
QUANTILES = 128
#: What a difference in colour counts beside one in light, in total variation of the form ``opponent``.
CHROMA = 6.0
#: Period of what two upsamplings by 2 repeat, and side of the windows in which it is looked for, pixels.
PERIOD, WINDOW = 4, 32
#: Side of the blocks, in pixels, over which the colour term averages lightness.
COLOR_BLOCK = 32
#: Points of a warp of the stability term each way, between which it is smooth.
WARP_POINTS = 5
#: Pixels of the shift of a warp at most, and of what its points differ from that by: turned, enlarged, bent.
_SHIFT, _FAR, _BEND = 4.0, 24.0, 3.0
#: Change of brightness that goes with a warp at most, either way.
_GAIN = 0.05
#: Standard deviation, in pixels, of the Gaussian that fine detail is finer than.
_FINE = 4.0
#: Of fine detail, less than a level of 255.
_LEAST = 1e-5
#: Pixels at the border that the stability term does not compare.
_BORDER = 16


# --- pure functions -------------------------------------------------------------------------------


def content_loss(features: Tensor, target: Tensor, form: ContentForm = "mean") -> Tensor:
    """Feature reconstruction loss.

    Args:
        features, target: (B, C, H, W); the target's batch may be 1.
        form: ``mean`` Σ(F-P)² / (C H W), Johnson eq. 2; ``half_sum`` ½ Σ(F-P)², Gatys 2016 eq. 1.

    Returns:
        Scalar, mean over the batch, float32 or better.
    """
    squares = (_precise(features) - _precise(target)).square()
    per_image = squares.sum((1, 2, 3)).mean()
    if form == "mean":
        return per_image / features[0].numel()
    if form == "half_sum":
        return per_image / 2
    raise ValueError(f"content form is {form!r}; expected mean or half_sum")


def gram_matrix(features: Tensor, divisor: GramDivisor = "chw") -> Tensor:
    """Gram matrix over channels, F Fᵀ over a divisor (Gatys 2015 eq. 1, Johnson eq. 3).

    Accumulated in float32 or better, with autocast off: half precision overflows or loses the small
    entries. The divisor is applied to the factors before the product, for the same reason.

    Args:
        features: (B, C, H, W).
        divisor: ``none`` 1, ``hw`` H·W, ``chw`` C·H·W.

    Returns:
        (B, C, C), symmetric.
    """
    channels, height, width = features.shape[1:]
    divisors = {"none": 1, "hw": height * width, "chw": channels * height * width}
    if divisor not in divisors:
        raise ValueError(f"Gram divisor is {divisor!r}; expected one of {', '.join(divisors)}")
    with torch.autocast(features.device.type, enabled=False):
        flat = _precise(features).flatten(2) / math.sqrt(divisors[divisor])
        return flat @ flat.transpose(1, 2)


def style_loss(gram: Tensor, target: Tensor, form: StyleForm = "sum") -> Tensor:
    """Squared Frobenius distance of Gram matrices.

    Args:
        gram, target: (B, N, N); the target's batch may be 1.
        form: ``sum`` (Johnson eq. 4), ``mean`` 1/N² (Johnson's code), ``quarter`` 1/(4 N²) (Gatys
            eq. 4, for Gram matrices divided by H·W).

    Returns:
        (B,).
    """
    n = gram.shape[-1]
    divisors = {"sum": 1, "mean": n**2, "quarter": 4 * n**2}
    if form not in divisors:
        raise ValueError(f"style form is {form!r}; expected one of {', '.join(divisors)}")
    return (_precise(gram) - _precise(target)).square().sum((1, 2)) / divisors[form]


def projected(features: Tensor, samples: int | None = None) -> Tensor:
    """Each position's features along 2 C directions: the channels, and their orthonormal DCT-II.

    Args:
        features: (B, C, H, W).
        samples: take every k-th position in reading order, about so many in all, k and W without a common
            divisor so that they are spread over rows and columns; None: all.

    Returns:
        (B, 2 C, positions), float32 or better.
    """
    with torch.autocast(features.device.type, enabled=False):
        flat = _precise(features).flatten(2)
        if samples:
            every = max(1, flat.shape[-1] // samples)
            while math.gcd(every, 2 * features.shape[-1]) > 1:  # odd too, for networks that upsample by 2
                every += 1
            flat = flat[:, :, ::every]
        channels = flat.shape[1]
        row = torch.arange(channels, device=flat.device, dtype=flat.dtype)
        cosines = torch.cos(math.pi / channels * row[:, None] * (row + 0.5)) * math.sqrt(2 / channels)
        cosines = torch.where(row[:, None] == 0, cosines / math.sqrt(2), cosines)
        return torch.cat([flat, cosines @ flat], 1)


def feature_quantiles(features: Tensor, count: int = QUANTILES) -> Tensor:
    """The distribution of features, as ``sliced_wasserstein`` takes it: sorted lists in ``count`` means.

    Args:
        features: (B, C, H, W).

    Returns:
        (B, 2 C, count), rising along the last axis.
    """
    return F.adaptive_avg_pool1d(projected(features).sort(-1).values, count)


def sliced_wasserstein(features: Tensor, target: Tensor, samples: int | None = None) -> Tensor:
    """Squared sliced Wasserstein distance of features to a distribution (Heitz et al. 2021, eq. 3).

    Args:
        features: (B, C, H, W).
        target: (B or 1, 2 C, Q), from ``feature_quantiles``.
        samples: positions to take, as in ``projected``; sorting fewer is faster.

    Returns:
        (B,): mean over directions and positions of the squared difference of the sorted lists.
    """
    found = projected(features, samples).sort(-1).values
    count = found.shape[-1]
    wanted = F.interpolate(target.to(found), count, mode="linear" if count >= target.shape[-1] else "area")
    return (found - wanted).square().mean((1, 2))


def total_variation(image: Tensor, form: TVForm = "squared", reduction: Reduction = "sum") -> Tensor:
    """Total variation: differences between neighbouring pixels, down and across.

    Args:
        image: (B, C, H, W).
        form: ``squared`` Σ d² (Johnson, § 3.2, after Mahendran & Vedaldi), ``l1`` ``Σ |d|``, or ``opponent``
            ``Σ |m| + CHROMA |d - m|``, where m is the mean of d over the channels.
        reduction: ``sum`` over the image, or ``mean``: that over C · H · W.

    Returns:
        Scalar, mean over the batch.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"total variation reduction is {reduction!r}; expected sum or mean")
    image = _precise(image)
    down = image[:, :, 1:] - image[:, :, :-1]
    across = image[:, :, :, 1:] - image[:, :, :, :-1]
    if form == "squared":
        per_image = (down.square().sum((1, 2, 3)) + across.square().sum((1, 2, 3))).mean()
    elif form in ("l1", "opponent"):
        if form == "opponent":
            down, across = _opponent(down), _opponent(across)
        per_image = (down.abs().sum((1, 2, 3)) + across.abs().sum((1, 2, 3))).mean()
    else:
        raise ValueError(f"total variation form is {form!r}; expected squared, l1 or opponent")
    return per_image / image[0].numel() if reduction == "mean" else per_image


def _opponent(difference: Tensor) -> Tensor:
    mean = difference.mean(1, keepdim=True).expand_as(difference)
    return torch.cat([mean, CHROMA * (difference - mean)], 1)


def pixel_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of pixels, Σ(Y-X)² / (C H W) (Johnson § 3.2); (B, 3, H, W) each."""
    return content_loss(image, target, "mean")


def checkerboard_loss(image: Tensor) -> Tensor:
    """What repeats in an image with the period of two upsamplings by 2: see ``folded``.

    Nothing but its position modulo 4 tells a network the pixels of an even area apart, so it uses that
    to make a texture there: checkerboard artifacts. Pixels that are optimised themselves need no such term.

    Args:
        image: (B, 3, H, W).

    Returns:
        Scalar: mean square of the windows' mean 4×4 pixels less their mean; 0 for less than a window.
    """
    if min(image.shape[-2:]) < WINDOW:
        return torch.zeros((), device=image.device)
    return folded(_precise(image)).square().mean()


def folded(images: Tensor) -> Tensor:
    """The mean 4×4 pixels of each window of 32, less their mean: (B, 3, H/32, 4, W/32, 4) of (B, 3, H, W).

    The first and the last of the eight count less, so that the mean of each of the 4 lies at the window's centre:
    a slope is no pattern.
    """
    batch, channels, height, width = images.shape
    rows, columns, repeats = height // WINDOW, width // WINDOW, WINDOW // PERIOD
    windows = images[:, :, : rows * WINDOW, : columns * WINDOW].reshape(
        batch, channels, rows, repeats, PERIOD, columns, repeats, PERIOD
    )
    weights = torch.ones(repeats, PERIOD, dtype=images.dtype, device=images.device)
    weights[0] = (torch.arange(PERIOD, device=images.device) + 0.5) / PERIOD
    weights[-1] = 1 - weights[0]
    weights = weights / (repeats - 1)
    tiles = (windows * weights[:, :, None, None, None] * weights).sum((3, 6))
    return tiles - tiles.mean((3, 5), keepdim=True)


def block_colors(image: Tensor, side: int = COLOR_BLOCK) -> Tensor:
    """Mean colours of blocks of ``side`` pixels each way, those at the edges smaller.

    Args:
        image: (B, 3, H, W).
        side: pixels.

    Returns:
        (B, 3, ⌈H / side⌉, ⌈W / side⌉).
    """
    return _block_sums(_precise(image), side) / _block_sums(torch.ones_like(image[:1, :1]), side)


def _block_sums(image: Tensor, side: int) -> Tensor:
    # A sum, since the compiled gradient of a mean divides by whole blocks at the edges, too (torch 2.14).
    return F.avg_pool2d(image, side, ceil_mode=True, divisor_override=1)


def color_loss(image: Tensor, target: Tensor, hue_weight: float = 0.25, hue_block: int = COLOR_BLOCK) -> Tensor:
    """Difference of an image's blocks from the colours that they should have.

    Args:
        image: (B, 3, H, W).
        target: (B or 1, 3, ⌈H / hue_block⌉, ⌈W / hue_block⌉), from ``block_colors``.
        hue_weight: what hue and saturation count, where lightness counts 1.
        hue_block: side of the blocks over which hue and saturation are averaged, pixels; divides ``COLOR_BLOCK``.

    Returns:
        (B,): mean over the image of the squared difference of the channels' mean in its block of ``COLOR_BLOCK``, and
        ``hue_weight`` times the mean square of what the channels differ by beyond that in its block of ``hue_block``.
    """
    difference = block_colors(image, hue_block) - target
    share = _block_sums(difference.new_ones(1, 1, *image.shape[-2:]), hue_block) / image[0, 0].numel()
    light = difference.mean(1, keepdim=True)
    rest = difference.square().mean(1, keepdim=True) - light.square()
    merged = COLOR_BLOCK // hue_block  # blocks each way
    grey = _block_sums(light * share, merged).square() / _block_sums(share, merged)
    return grey.sum((1, 2, 3)) + hue_weight * (rest * share).sum((1, 2, 3))


def random_warp(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A warp and a brightness for ``stability_loss``.

    Every other warp is a shift by whole pixels, which needs no interpolation: nothing blurs what is compared. Three in
    ten are as far as a video moves within ten frames: what comes into view changes the moments of instance norm.

    Returns:
        (1, 2, WARP_POINTS, WARP_POINTS), in pixels right and down, and a factor, ().
    """
    reach = _FAR if rng.random() < 0.3 else _SHIFT
    shift = rng.uniform(-reach, reach, (2, 1, 1))
    if rng.random() < 0.5:
        warp = np.broadcast_to(np.rint(shift), (2, WARP_POINTS, WARP_POINTS))
    else:
        across = np.broadcast_to(np.linspace(-1, 1, WARP_POINTS), (WARP_POINTS, WARP_POINTS))
        turn, zoom = rng.uniform(-_BEND, _BEND, 2)
        linear = np.stack([zoom * across - turn * across.T, turn * across + zoom * across.T])
        warp = shift + linear + rng.normal(0, _BEND / 4, (2, WARP_POINTS, WARP_POINTS))
    gain = torch.tensor(1 + rng.uniform(-_GAIN, _GAIN), dtype=torch.float32)
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
    2019, "Making convolutional networks shift-invariant again"): edges end in steps of 4 pixels, and a video flickers.
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


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
