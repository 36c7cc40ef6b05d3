"""What can be asked of pixels: each recipe turns pictures into an objective for ``optimize``.

All of them are the same loss with other targets; which layers count, and how, is the loss's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from fststyle.color import match_color
from fststyle.losses import LossTerms, PerceptualLoss
from fststyle.networks import styleswap
from fststyle.optimization.optimize import Objective, Optimization


def transfer(loss: PerceptualLoss, content: Tensor, style: Tensor | Mapping[str, Tensor]) -> Objective:
    """The content of one picture in the style of another (Gatys, Ecker, Bethge 2016, eq. 7).

    Args:
        loss: weighs the two.
        content: (1, 3, H, W).
        style: a picture of any size, or style targets, such as a model file's.
    """
    targets = style if isinstance(style, Mapping) else loss.style_targets(style)
    features = loss.content_targets(content, targets)
    return lambda image: loss(image, content=features, style=targets)


def texture(loss: PerceptualLoss, source: Tensor) -> Objective:
    """A texture like the source's, of any size (Gatys, Ecker, Bethge 2015).

    With a growing set of layers it is the style reconstruction of Gatys 2016, Figure 1.
    """
    targets = loss.style_targets(source)
    return lambda image: loss(image, style=targets)


def content_reconstruction(loss: PerceptualLoss, source: Tensor) -> Objective:
    """A picture with the source's features at the loss's content layers (Gatys 2016, Figure 1; Mahendran & Vedaldi)."""
    features = loss.content_targets(source)
    return lambda image: loss(image, content=features)


def swap(
    loss: PerceptualLoss, content: Tensor, style: Tensor, patch: int = 3, stride: int = 1, visible: Tensor | None = None
) -> Objective:
    """The content with every patch of its features replaced by the style's most similar (Chen & Schmidt 2016).

    Args:
        loss: its content layers are where patches are swapped; total variation counts if it has a weight.
        content: (1, 3, H, W).
        style: (1, 3, H', W'), of any size.
        patch, stride, visible: as ``networks.styleswap.swap`` takes them.

    Raises:
        ValueError: a loss without content layers; pictures too small for the patch.
    """
    features, patterns = loss.content_targets(content), loss.content_targets(style)
    if not features:
        raise ValueError("the loss has no content layer with a weight; style swap needs one, such as relu3_1")
    swapped = {
        layer: styleswap.swap(value, patterns[layer], patch, stride, visible=visible)
        for layer, value in features.items()
    }
    return lambda image: loss(image, content=swapped)


def faster(objective: Objective, precision: str = "float32", compile: bool = False) -> Objective:
    """The same objective, evaluated faster.

    Args:
        objective: any of the above.
        precision: ``bfloat16`` evaluates the encoder by autocast; Gram matrices, terms and the pixels'
            gradient stay float32.
        compile: through ``torch.compile``, which takes half a minute.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision is {precision!r}; expected float32 or bfloat16")
    if precision == "float32" and not compile:
        return objective
    evaluate: Objective = torch.compile(objective) if compile else objective

    def run(image: Tensor) -> LossTerms:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return evaluate(image.contiguous(memory_format=torch.channels_last))

    return run


def starting_image(
    kind: str,
    size: tuple[int, int],
    content: Tensor | None = None,
    style: Tensor | None = None,
    deviation: float = 0.25,
    seed: int = 0,
    around: Tensor | None = None,
) -> Tensor:
    """Where an optimisation starts: an image (1, 3, H, W) in [0, 1].

    Args:
        kind: ``noise``, ``gray``, ``content`` or ``style`` (Gatys 2016, Figure 6), or ``recolored``, the content with
            the mean and covariance of the style's colours: pixels reach another palette only slowly.
        size: height and width in pixels; pictures are brought to it.
        content, style: (1, 3, H', W'), for the kinds of that name.
        deviation: of the noise, which is Gaussian. Gatys' texture code uses 1/255.
        seed: of the noise.
        around: a picture (1, 3, H', W') whose mean colour the noise has; mid grey without one.

    Raises:
        ValueError: unknown kind, or the picture that it needs is missing.
    """
    if kind == "noise":
        generator = torch.Generator().manual_seed(seed)
        mean = 0.5 if around is None else around.mean((2, 3), keepdim=True)
        return (mean + deviation * torch.randn(1, 3, *size, generator=generator)).clamp(0, 1)
    if kind == "gray":
        return torch.full((1, 3, *size), 0.5)
    pictures = {"recolored": None, "content": content, "style": style}
    if kind == "recolored" and content is not None and style is not None:
        pictures["recolored"] = match_color(content, style)
    picture = pictures.get(kind)
    if kind not in pictures or picture is None:
        raise ValueError(f"start is {kind!r}; expected recolored, noise, gray, content, style or a picture file")
    return resized(picture, size)


def size_of(image: Tensor) -> tuple[int, int]:
    """Height and width of an image (…, H, W)."""
    return image.shape[-2], image.shape[-1]


def pixel_range(source: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each channel of (1, 3, H, W), (1, 3, 1, 1) each: bounds of Gatys' textures."""
    return source.amin((2, 3), keepdim=True), source.amax((2, 3), keepdim=True)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (1, 3, H, W) at another height and width, bicubic with antialiasing, in [0, 1]."""
    if size_of(image) == tuple(size):
        return image
    return F.interpolate(image, size, mode="bicubic", antialias=True).clamp(0, 1)


def coarse_to_fine(
    start: Tensor, sizes: Iterable[tuple[int, int]], run: Callable[[Tensor, int], Optimization]
) -> Optimization:
    """Optimise at growing sizes, each from the enlarged result of the one before (Gatys et al. 2017).

    Args:
        start: the image for the first size; brought to it.
        sizes: (height, width) each.
        run: (image of that size, number of the stage) to the stage's result.

    Returns:
        The last stage's result; it is also returned when a stage was interrupted.
    """
    result: Optimization | None = None
    for stage, size in enumerate(sizes):
        result = run(resized(start if result is None else result.image, size), stage)
        if result.stopped == "interrupted":
            break
    if result is None:
        raise ValueError("coarse to fine takes at least one size; found none")
    return result
